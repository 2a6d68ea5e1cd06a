//! What is known of every class: types and sizes, whether it is made of weights alone, whether all its elements are one
//! number, and between which values they lie. Merging two classes keeps what is known of either.

use super::{Graph, changes::Changes, signature::Signatures, term::Tag, term::Term};
use crate::plan::pack::FEWEST;
use egg::{Analysis, DidMerge, Id};
use rustc_hash::FxHashSet;
use std::sync::Arc;
use strang_ir::{
    ElementType, Literal, Node, Op, Size, Tensor,
    op::Monoid,
    scalar::{Binary, Unary},
};
use strang_runtime::kernels::book::CODES;

/// The element type and shape of a result.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Port {
    /// The type of an element.
    pub element: ElementType,
    /// The sizes of the axes.
    pub shape: Vec<Size>,
}

/// Where elements lie, NaN apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// No element is less.
    pub low: f64,
    /// No element is greater.
    pub high: f64,
    /// Whether an element may be NaN.
    pub nan: bool,
}

impl Range {
    /// Nothing known.
    pub const ANY: Range = Range { low: f64::NEG_INFINITY, high: f64::INFINITY, nan: true };

    fn of(value: f64) -> Self {
        if value.is_nan() { Range::ANY } else { Range { low: value, high: value, nan: false } }
    }

    /// What elements of a type can be.
    pub fn of_type(element: ElementType) -> Self {
        match element.integer_range() {
            Some((low, high)) => Range { low: low as f64, high: high as f64, nan: false },
            None => Range::ANY,
        }
    }

    fn is_within(self, other: Range) -> bool {
        !self.nan && self.low >= other.low && self.high <= other.high
    }

    /// Whether every element is a finite number.
    pub fn is_finite(self) -> bool {
        !self.nan && self.low.is_finite() && self.high.is_finite()
    }

    fn and(self, other: Range) -> Range {
        Range { low: self.low.max(other.low), high: self.high.min(other.high), nan: self.nan && other.nan }
    }

    fn or(self, other: Range) -> Range {
        Range { low: self.low.min(other.low), high: self.high.max(other.high), nan: self.nan || other.nan }
    }
}

/// What is known of a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The signature that the class is.
    pub signature: Option<u32>,
    /// Its results.
    pub ports: Arc<[Port]>,
    /// Whether it is made of weights and numbers alone, with sizes that are known.
    pub constant: bool,
    /// The number that every element is.
    pub literal: Option<Literal>,
    /// Where the elements of the first result lie.
    pub range: Range,
    /// Whether it is a weight in which few numbers occur, as far as its first elements tell: products with it are of codes.
    pub coded: bool,
    /// A view in the class: its signature and operand.
    pub view: Option<(u32, Id)>,
    /// The node of the window that it was first made for; `u32::MAX` for values from outside.
    pub origin: u32,
}

impl Facts {
    /// A value of which nothing else is known.
    pub fn value(element: ElementType, shape: Vec<Size>) -> Self {
        Self::ports(vec![Port { element, shape }])
    }

    fn ports(ports: Vec<Port>) -> Self {
        let range = ports.first().map_or(Range::ANY, |port| Range::of_type(port.element));
        Facts {
            signature: None,
            ports: ports.into(),
            constant: false,
            literal: None,
            range,
            coded: false,
            view: None,
            origin: u32::MAX,
        }
    }

    /// A weight. Large ones are not looked at: that would read the whole file.
    pub fn parameter(element: ElementType, shape: Vec<Size>, data: Option<&Tensor>) -> Self {
        const LOOKED_AT: usize = 1 << 12;
        let mut facts = Self::value(element, shape);
        facts.constant = data.is_some();
        facts.coded = data.is_some_and(|data| data.count() >= FEWEST && begins_with_few(data));
        if let Some(data) = data.filter(|data| data.count() > 0 && data.count() <= LOOKED_AT) {
            let first = data.bits_at(0);
            if (1..data.count()).all(|position| data.bits_at(position) == first) {
                facts.literal = Some(Literal { element, bits: first });
            }
            facts.range = range_of(data);
        }
        facts
    }

    /// The element type of the first result.
    pub fn element(&self) -> ElementType {
        self.ports.first().map_or(ElementType::Bool, |port| port.element)
    }

    /// The shape of the first result.
    pub fn shape(&self) -> &[Size] {
        self.ports.first().map_or(&[], |port| &port.shape)
    }
}

/// What the e-graph knows beside its terms.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    /// The signatures.
    pub signatures: Signatures,
    /// Of the values from outside.
    pub externals: Vec<Facts>,
    /// Of the weights.
    pub parameters: Vec<Facts>,
    /// The operations that the graph has terms of.
    pub tags: FxHashSet<Tag>,
    /// What changed since the rules last looked.
    pub changes: Changes,
    /// What rules did, in order.
    pub applied: Vec<Applied>,
    /// How often a rule built something of another type or shape, which is a fault of the rule.
    pub refused: usize,
    /// Classes that several others are views of, which pay only for all of them together.
    pub wholes: Vec<Id>,
    /// Matches that were applied, by their hashes: applying one again builds what is there.
    pub done: FxHashSet<u64>,
    /// What new terms are made for.
    pub origin: u32,
    /// How many applications are allowed.
    pub fuel: usize,
    /// Whether refusals are noted.
    pub explain: bool,
    /// Rules that matched a class but for one conjunct of their guard: the rule, the conjunct and what the class was made
    /// for.
    pub refusals: FxHashSet<(usize, usize, u32)>,
}

/// An application of a rule.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The rule, by its position in the list.
    pub rule: usize,
    /// The class that it found another form of.
    pub class: Id,
    /// The terms that are new.
    pub new: Vec<Term>,
    /// The terms that it matched, the whole last.
    pub matched: Vec<Term>,
}

/// Where the elements of a weight lie.
fn range_of(data: &Tensor) -> Range {
    if data.element() != ElementType::F32 {
        return data.to_f64().into_iter().map(Range::of).reduce(Range::or).unwrap_or(Range::ANY);
    }
    // Weights of a file may lie at any address. One pass without branches: a model has one of these for every bias and gain.
    let (mut low, mut high, mut nan) = (f32::INFINITY, f32::NEG_INFINITY, false);
    for bytes in data.bytes().as_chunks().0 {
        let value = f32::from_ne_bytes(*bytes);
        low = if value < low { value } else { low };
        high = if value > high { value } else { high };
        nan |= value.is_nan();
    }
    if nan { Range::ANY } else { Range { low: low.into(), high: high.into(), nan } }
}

/// Whether as few numbers occur among the first elements of a weight as a book holds.
fn begins_with_few(data: &Tensor) -> bool {
    const FIRST: usize = 256;
    let mut numbers = Vec::with_capacity(CODES + 1);
    (0..data.count().min(FIRST)).all(|position| {
        let number = data.bits_at(position);
        if !numbers.contains(&number) {
            numbers.push(number);
        }
        numbers.len() <= CODES
    })
}

impl Analysis<Term> for Knowledge {
    type Data = Facts;

    fn make(graph: &mut Graph, term: &Term, _: Id) -> Facts {
        let mut facts = match term {
            Term::Signature(number) => Facts { signature: Some(*number), ..Facts::ports(Vec::new()) },
            Term::External(number) => return graph.analysis.externals[*number as usize].clone(),
            Term::Parameter(number) => return graph.analysis.parameters[*number as usize].clone(),
            Term::Constant(literal) => {
                let mut facts = Facts::value(literal.element, Vec::new());
                facts.constant = true;
                facts.literal = Some(*literal);
                facts.range = Range::of(literal.to_f64());
                return facts;
            }
            Term::Project(port, [whole]) => {
                Facts::ports(graph[*whole].data.ports.get(*port as usize).cloned().into_iter().collect())
            }
            Term::Apply(tag, _, children) => {
                graph.analysis.tags.insert(*tag);
                operation(graph, *tag, children)
            }
        };
        facts.origin = graph.analysis.origin;
        facts
    }

    fn merge(&mut self, a: &mut Facts, b: Facts) -> DidMerge {
        debug_assert_eq!((&a.ports, a.signature), (&b.ports, b.signature), "equal values have one shape");
        let merged = Facts {
            signature: a.signature,
            ports: a.ports.clone(),
            constant: a.constant || b.constant,
            literal: a.literal.or(b.literal),
            range: a.range.and(b.range),
            coded: a.coded || b.coded,
            view: a.view.or(b.view),
            origin: a.origin.min(b.origin),
        };
        let changed = DidMerge(*a != merged, b != merged);
        *a = merged;
        changed
    }

    fn modify(graph: &mut Graph, class: Id) {
        graph.analysis.changes.note(class);
    }
}

fn operation(graph: &Graph, tag: Tag, children: &[Id]) -> Facts {
    let Some(number) = graph[children[0]].data.signature else { return Facts::ports(Vec::new()) };
    let node: &Node = graph.analysis.signatures.node(number);
    let operand = |slot: usize| &graph[children[slot + 1]].data;
    let operands = || children[1..].iter().map(|child| &graph[*child].data);
    let ports = (0..node.outputs.len() as u32)
        .map(|port| Port { element: node.outputs[port as usize].element, shape: node.shape(port) })
        .collect();
    let mut facts = Facts::ports(ports);
    let known = node.shape(0).iter().all(|size| size.as_constant().is_some());
    facts.constant = tag != Tag::Opaque && known && node.outputs.len() == 1 && operands().all(|facts| facts.constant);
    // Reads outside an operand yield the fill.
    let read = |slot: usize| match node.maps[slot].fill {
        None => operand(slot).range,
        Some(fill) => operand(slot).range.or(Range::of(fill.to_f64())),
    };
    let uniform =
        |slot: usize| operand(slot).literal.filter(|literal| node.maps[slot].fill.is_none_or(|fill| fill == *literal));
    match tag {
        Tag::View | Tag::Gather => {
            facts.literal = uniform(0);
            facts.range = read(0);
            if tag == Tag::View {
                facts.view = Some((number, children[1]));
            }
        }
        Tag::Unary(function) => facts.range = of_unary(function, read(0)),
        Tag::Binary(function) => {
            let is_square = graph.find(children[1]) == graph.find(children[2]) && node.maps[0] == node.maps[1];
            facts.range = of_binary(function, read(0), read(1), is_square);
            facts.literal = uniform(0).zip(uniform(1)).and_then(|(a, b)| fold(function, a, b));
        }
        Tag::Cast => facts.literal = uniform(0).and_then(|literal| converted(literal, facts.element())),
        Tag::Select => facts.range = read(1).or(read(2)),
        Tag::Concat => {
            facts.range = (0..children.len() - 1).map(read).reduce(Range::or).unwrap_or(Range::ANY);
        }
        Tag::Reduce(Monoid::Minimum | Monoid::Maximum) if positive_sizes(node) => facts.range = read(0),
        Tag::Reduce(Monoid::Sum) if read(0).low >= 0. => {
            facts.range = Range { low: 0., high: f64::INFINITY, nan: read(0).nan };
        }
        Tag::Softmax if !matches!(node.op, Op::Softmax { log: true, .. }) => {
            facts.range = Range { low: 0., high: 1., nan: true };
        }
        _ => {}
    }
    if !facts.element().is_float() {
        // Integers wrap, and conversions saturate: what may leave the type is anywhere in it.
        let all = Range::of_type(facts.element());
        let range = match tag {
            Tag::Binary(function) if !function.is_comparison() => of_integers(function, read(0), read(1)),
            Tag::Unary(Unary::Negate | Unary::Absolute) => Range::ANY,
            Tag::Cast if !operand(0).element().is_float() => read(0),
            _ => facts.range,
        };
        facts.range = if range.is_within(all) { range } else { all };
    } else if tag == Tag::Cast && read(0).is_within(EXACT) && !operand(0).element().is_float() {
        facts.range = read(0);
    }
    facts
}

/// Integers that floats of 32 bits hold.
const EXACT: Range = Range { low: -16_777_216., high: 16_777_216., nan: false };

/// Where a function of two integers lies, if it does not wrap.
fn of_integers(function: Binary, a: Range, b: Range) -> Range {
    match function {
        Binary::Add => Range { low: a.low + b.low, high: a.high + b.high, nan: false },
        Binary::Subtract => Range { low: a.low - b.high, high: a.high - b.low, nan: false },
        Binary::Multiply => {
            let corners = [a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high];
            let (low, high) = corners.iter().fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
            Range { low, high, nan: false }
        }
        Binary::Minimum => Range { low: a.low.min(b.low), high: a.high.min(b.high), nan: false },
        Binary::Maximum => Range { low: a.low.max(b.low), high: a.high.max(b.high), nan: false },
        _ => Range::ANY,
    }
}

/// Whether a reduction is never over nothing.
fn positive_sizes(node: &Node) -> bool {
    node.contracted().iter().all(|v| node.size_of(*v).lower_bound(1).is_some_and(|low| low >= 1))
}

fn of_unary(function: Unary, x: Range) -> Range {
    let within = |low: f64, high: f64| Range { low, high, nan: x.nan };
    match function {
        Unary::Relu => within(x.low.max(0.), x.high.max(0.)),
        Unary::Exp => within(0., f64::INFINITY),
        Unary::Sigmoid | Unary::HardSigmoid6 => within(0., 1.),
        Unary::Tanh | Unary::Erf | Unary::Sign => within(-1., 1.),
        Unary::Sin | Unary::Cos => Range { low: -1., high: 1., nan: true },
        Unary::Absolute | Unary::Softplus => within(0., f64::INFINITY),
        Unary::SquareRoot => Range { low: 0., high: f64::INFINITY, nan: x.nan || x.low < 0. },
        Unary::Negate => within(-x.high, -x.low),
        _ => Range::ANY,
    }
}

fn of_binary(function: Binary, a: Range, b: Range, same: bool) -> Range {
    let nan = a.nan || b.nan;
    match function {
        Binary::Minimum => Range { low: a.low.min(b.low), high: a.high.min(b.high), nan },
        Binary::Maximum => Range { low: a.low.max(b.low), high: a.high.max(b.high), nan },
        // Overflow goes to an infinity of the sum's sign.
        Binary::Add if a.low >= 0. && b.low >= 0. => Range { low: 0., high: f64::INFINITY, nan },
        Binary::Multiply if same => Range { low: 0., high: f64::INFINITY, nan },
        Binary::Multiply if a.low >= 0. && b.low >= 0. => Range { low: 0., high: f64::INFINITY, nan: true },
        _ => Range::ANY,
    }
}

/// The number that a function of two float numbers is, rounded once in their type.
pub fn fold(function: Binary, a: Literal, b: Literal) -> Option<Literal> {
    let element = a.element;
    if a.element != b.element || !element.is_float() {
        return None;
    }
    let value = if element == ElementType::F64 {
        arithmetic(function, a.to_f64(), b.to_f64())?
    } else {
        f64::from(arithmetic(function, a.to_f64() as f32, b.to_f64() as f32)?)
    };
    Some(Literal::from_f64(element, value))
}

/// An integer in another type, if that holds it.
fn converted(literal: Literal, to: ElementType) -> Option<Literal> {
    let value = literal.to_f64();
    let is_held = match to.integer_range() {
        Some((low, high)) => value >= low as f64 && value <= high as f64,
        None => Range::of(value).is_within(EXACT),
    };
    (literal.element.is_integer() && to != ElementType::Bool && is_held).then(|| Literal::from_f64(to, value))
}

fn arithmetic<T>(function: Binary, a: T, b: T) -> Option<T>
where
    T: std::ops::Add<Output = T> + std::ops::Sub<Output = T> + std::ops::Mul<Output = T> + std::ops::Div<Output = T>,
{
    Some(match function {
        Binary::Add => a + b,
        Binary::Subtract => a - b,
        Binary::Multiply => a * b,
        Binary::Divide => a / b,
        _ => return None,
    })
}
