//! The weights and biases of a circuit's products and convolutions, and the codes that they get.

use super::{Granularity, Scheme, Splitting, codes::Coding, split::Split};
use petgraph::stable_graph::NodeIndex;
use rayon::prelude::*;
use std::collections::BTreeMap;
use strang_ir::{ElementType, Function, IndexExpr, Module, Op, ScalarExpr, Size, scalar::Binary};

/// Layers with fewer weights stay as they are.
const FEWEST: usize = 512;

/// The slot and the number of a product's weights, and which of them belong together.
pub(crate) fn weights(
    module: &Module,
    function: &Function,
    node: NodeIndex,
    granularity: Granularity,
) -> Option<(u32, u32, Grouping)> {
    let product = &function.graph[node];
    let Op::Dot { .. } = product.op else { return None };
    let contracted = product.contracted();
    function.operands(node).into_iter().enumerate().find_map(|(slot, value)| {
        let Op::Param(number) = function.graph[value.node].op else { return None };
        let parameter = &module.parameters[number as usize];
        let data = parameter.data.as_ref()?;
        let variables = product.maps[slot].as_variables()?;
        let sums = variables.iter().any(|variable| contracted.contains(variable));
        if parameter.element != ElementType::F32 || data.count() < FEWEST || !sums {
            return None;
        }
        Some((slot as u32, number, Grouping::new(data.shape(), &variables, &contracted, granularity)))
    })
}

/// The sum that adds a bias to a product and nothing else, its slot for the bias, and the bias.
pub fn bias(module: &Module, function: &Function, product: NodeIndex) -> Option<(NodeIndex, u32, u32)> {
    let [(sum, slot)] = function.readers(product.into())[..] else { return None };
    let [first, second] = function.operands(sum)[..] else { return None };
    let [a, b] = [ScalarExpr::Operand(0), ScalarExpr::Operand(1)];
    let sums = [ScalarExpr::binary(Binary::Add, a.clone(), b.clone()), ScalarExpr::binary(Binary::Add, b, a)];
    let is_sum = matches!(&function.graph[sum].op, Op::Map(expression) if sums.contains(expression));
    if !is_sum || function.outputs.contains(&product.into()) {
        return None;
    }
    let other = if slot == 0 { second } else { first };
    let Op::Param(number) = function.graph[other.node].op else { return None };
    let parameter = &module.parameters[number as usize];
    let is_vector = parameter.element == ElementType::F32 && parameter.axes.len() == 1 && parameter.data.is_some();
    is_vector.then_some((sum, 1 - slot, number))
}

/// Which weights share a book.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grouping {
    shape: Vec<usize>,
    /// For every axis how far positions along it are apart: in channels, and in terms of the sum.
    strides: Vec<(usize, usize)>,
    granularity: Granularity,
    channels: usize,
    terms: usize,
}

impl Grouping {
    /// By the position along the axes of output channels and, in groups, along those of the sum.
    pub fn new(shape: &[usize], variables: &[u32], contracted: &[u32], granularity: Granularity) -> Self {
        let (mut channels, mut terms) = (1, 1);
        let mut strides = Vec::new();
        for (size, variable) in shape.iter().zip(variables).rev() {
            if contracted.contains(variable) {
                strides.push((0, terms));
                terms *= size;
            } else {
                strides.push((channels, 0));
                channels *= size;
            }
        }
        strides.reverse();
        Grouping { shape: shape.to_vec(), strides, granularity, channels, terms }
    }

    /// All of a vector.
    pub fn whole(length: usize) -> Self {
        Grouping::new(&[length], &[0], &[], Granularity::Tensor)
    }

    /// How many groups there are.
    pub fn count(&self) -> usize {
        match self.granularity {
            Granularity::Tensor => 1,
            Granularity::Channel => self.channels,
            Granularity::Group(size) => self.channels * self.terms.div_ceil(size),
        }
    }

    /// The group of every weight.
    pub fn of_all(&self) -> Vec<usize> {
        let count: usize = self.shape.iter().product();
        (0..count)
            .map(|position| {
                let (mut channel, mut term, mut rest) = (0, 0, position);
                for (size, (of_channels, of_terms)) in self.shape.iter().zip(&self.strides).rev() {
                    channel += rest % size * of_channels;
                    term += rest % size * of_terms;
                    rest /= size;
                }
                match self.granularity {
                    Granularity::Tensor => 0,
                    Granularity::Channel => channel,
                    Granularity::Group(size) => channel * self.terms.div_ceil(size) + term / size,
                }
            })
            .collect()
    }

    /// The group at a position of variables that run over the axes.
    pub fn expression(&self) -> IndexExpr {
        let sum = |stride: fn(&(usize, usize)) -> usize| {
            let strides = self.strides.iter().map(stride).enumerate();
            strides.fold(IndexExpr::constant(0), |sum, (axis, stride)| {
                sum.plus(&IndexExpr::variable(axis as u32).times(&Size::from(stride as i64)))
            })
        };
        let (channel, term) = (sum(|stride| stride.0), sum(|stride| stride.1));
        match self.granularity {
            Granularity::Tensor => IndexExpr::constant(0),
            Granularity::Channel => channel,
            Granularity::Group(size) => {
                let groups = Size::from(self.terms.div_ceil(size) as i64);
                let size_of = |variable: u32| Size::from(self.shape[variable as usize] as i64);
                channel.times(&groups).plus(&term.floor_div(&Size::from(size as i64), &size_of))
            }
        }
    }
}

/// Weights as indices into books.
pub struct Coded {
    /// An index into its group's book for every weight.
    pub codes: Vec<u16>,
    /// What the indices of each group stand for.
    pub books: Vec<Vec<f32>>,
    /// Which part of a split each weight is in.
    pub parts: Vec<u8>,
    /// The bits that codes, clusters, scales and zero points take.
    pub bits: usize,
    groups: Vec<usize>,
}

impl Coded {
    /// Codes for finite weights.
    pub fn new(data: &[f32], grouping: &Grouping, scheme: &Scheme) -> Self {
        let groups = grouping.of_all();
        let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        groups.iter().enumerate().for_each(|(position, group)| members.entry(*group).or_default().push(position));
        let results: Vec<(usize, Vec<usize>, Group)> = members
            .into_par_iter()
            .map(|(group, positions)| {
                let values: Vec<f32> = positions.iter().map(|position| data[*position]).collect();
                let coded = Group::new(&values, scheme);
                (group, positions, coded)
            })
            .collect();
        let mut coded = Coded {
            codes: vec![0; data.len()],
            books: vec![Vec::new(); grouping.count()],
            parts: vec![0; data.len()],
            bits: 0,
            groups,
        };
        for (number, positions, group) in results {
            coded.bits += group.bits;
            for ((position, code), part) in positions.iter().zip(group.codes).zip(group.parts) {
                (coded.codes[*position], coded.parts[*position]) = (code, part);
            }
            coded.books[number] = group.book;
        }
        coded
    }

    /// What the weights become.
    pub fn rounded(&self) -> Vec<f32> {
        self.codes.iter().zip(&self.groups).map(|(code, group)| self.books[*group][usize::from(*code)]).collect()
    }
}

/// The weights of a group.
struct Group {
    codes: Vec<u16>,
    parts: Vec<u8>,
    book: Vec<f32>,
    bits: usize,
}

impl Group {
    fn new(values: &[f32], scheme: &Scheme) -> Self {
        let (parts, codings) = match scheme.splitting {
            Splitting::Whole => {
                let own = values.iter().copied();
                let coding = match scheme.affine {
                    true => Coding::affine(own, scheme.bits),
                    false => Coding::symmetric(own, scheme.bits),
                };
                (vec![0; values.len()], vec![coding])
            }
            Splitting::Joined | Splitting::Layers => {
                let split = Split::new(values, scheme.bits);
                (split.parts, split.codings)
            }
        };
        let code = |(value, part): (&f32, &u8)| {
            let coding = &codings[usize::from(*part)];
            (u16::from(*part) << scheme.bits) + (coding.code(*value) - coding.codes.0) as u16
        };
        let codes = values.iter().zip(&parts).map(code).collect();
        let book = codings
            .iter()
            .flat_map(|coding| (0..1 << scheme.bits).map(|code| coding.value(coding.codes.0 + code)))
            .collect::<Vec<f32>>();
        // A scale takes 32 bits, a zero point as many as a code; the cluster and the code of a weight are one index.
        let affine = scheme.affine || scheme.splitting != Splitting::Whole;
        let coding_bits = 32 + if affine { scheme.bits as usize } else { 0 };
        let index = book.len().next_power_of_two().trailing_zeros() as usize;
        Group { codes, parts, bits: values.len() * index + codings.len() * coding_bits, book }
    }
}
