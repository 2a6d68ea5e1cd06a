//! Convolutions with few channels in their result: neighbouring results become channels, so that more columns of a tile are used.
//! Neighbours of a transposed convolution read different taps, of others the same ones moved.

use super::parts::{frame, output_frame, stacked, whole_axes};
use crate::plan::{
    residues::{MOST_KERNELS, result_and_tap},
    trace::is_multiple,
    windows::visit_sums,
};
use crate::rewrite::{
    egraph::{Read, build, compose::compose},
    rule::{Class, Conjunct, Find, Match, Rule},
    search::cost::{COLUMNS, columns},
};
use egg::Id;
use strang_ir::{Axis, Condition, ElementType, IndexExpr, IndexMap, Literal, Node, Output, Size, Variable};

/// So many are few.
const FEW_COLUMNS: i64 = COLUMNS / 2;
/// The most taps of a kernel.
const MOST_TAPS: i64 = 32;
/// The most neighbours: transforms of signals are transposed convolutions with strides of hundreds.
const MOST_NEIGHBOURS: i64 = 512;
/// The positions of padding before the first, at most.
const MOST_OFFSET: i64 = 1 << 16;
/// How many times fewer columns have to be computed.
const LEAST_GAIN: f64 = 2.;

/// Where a product slides: a tap, and the result's variable that it is beside.
struct Place {
    tap: u32,
    along: u32,
    taps: i64,
    /// Neighbours that become channels.
    neighbours: i64,
}

impl Place {
    /// The tap of a product with few columns at which most is gained; its first operand is the input.
    fn new(d: &Node) -> Option<Place> {
        let [x, w] = &d.maps[..] else { return None };
        let (output, contracted) = (&d.outputs[0].variables, d.contracted());
        let columns = count_columns(d).filter(|columns| *columns <= FEW_COLUMNS)?;
        let rows = || output.iter().copied().filter(|variable| x.mentions(*variable) && !w.mentions(*variable));
        let place = |tap: u32| {
            let taps = d.size_of(tap).as_constant().filter(|taps| (2..=MOST_TAPS).contains(taps))?;
            let along = rows().find(|along| slides(x, *along, tap))?;
            // What is read through a table has no position after the last.
            let is_affine = x.exprs.iter().all(IndexExpr::is_affine) && x.conditions.is_empty();
            let divides = |count: &i64| d.size_of(along).as_constant().is_some_and(|results| results % count == 0);
            let neighbours = (2..=COLUMNS / columns).rev().find(|count| is_affine || divides(count))?;
            let gain = (neighbours * taps) as f64 / (neighbours + taps - 1) as f64;
            (gain >= LEAST_GAIN).then_some(Place { tap, along, taps, neighbours })
        };
        contracted.into_iter().filter_map(place).max_by_key(|place| place.taps)
    }
}

/// How many columns a product has, where it has some and their number is known.
fn count_columns(d: &Node) -> Option<i64> {
    let count: i64 = columns(d)?.iter().map(|variable| d.size_of(*variable).as_constant()).product::<Option<i64>>()?;
    (count > 0).then_some(count)
}

/// Whether a map reads two variables in their sum alone.
fn slides(map: &IndexMap, along: u32, tap: u32) -> bool {
    let (mut is_sum, mut is_read) = (true, false);
    let mut look = |form: &IndexExpr| {
        let (one, other) = (form.coefficient(along), form.coefficient(tap));
        is_sum &= one == other && (one.is(0) || one.is(1));
        is_read |= one.is(1);
    };
    let conditions = map.conditions.iter().map(|condition| condition.expression());
    map.exprs.iter().chain(conditions).for_each(|expression| visit_sums(expression, &mut look));
    is_sum && is_read
}

/// What a product becomes whose neighbouring results are channels.
struct Grouped {
    along: u32,
    tap: u32,
    /// The taps of every neighbour's kernel.
    taps: i64,
    neighbours: i64,
    /// The position of the first result in its group.
    offset: i64,
}

impl Grouped {
    /// The product. `at` is the tap of the kernel that is a tap of a neighbour's, both as expressions in the neighbour's number;
    /// `read` is where the input is read by the groups, the taps and the neighbours.
    fn build(
        &self,
        m: &mut Match,
        d: &Node,
        at: &dyn Fn(i64, IndexExpr) -> IndexExpr,
        read: &dyn Fn([IndexExpr; 3]) -> [IndexExpr; 2],
    ) -> Option<Id> {
        let (x, w) = (m.id("x"), m.id("w"));
        let elements = [x, w].map(|value| m.graph[value].data.element());
        let [of_input, element] = elements;
        let is_multiplied = match elements {
            [ElementType::U8, ElementType::I8] => true,
            [one, other] => one.is_float() && one == other && one == d.outputs[0].element,
        };
        if !m.facts("w").constant || !is_multiplied {
            return None;
        }
        let mut own = whole_axes(m.graph, d, 1, w)?;
        let taps = Axis::new("tap", Size::from(self.taps));
        let mut variables: Vec<Variable> = own.iter().map(|variable| d.variables[*variable as usize].clone()).collect();
        let place = own.iter().position(|variable| *variable == self.tap)?;
        variables[place] = Variable::over(&taps);
        let over = frame(variables.into(), element);
        let kernels: Vec<Id> = (0..self.neighbours)
            .map(|number| {
                let mut exprs: Vec<IndexExpr> = (0..own.len() as u32).map(IndexExpr::variable).collect();
                exprs[place] = at(number, exprs[place].clone());
                let map = IndexMap::new(exprs).with_fill(Literal::zero(element));
                build::view(m.graph, &over, Read { value: w, map })
            })
            .collect();
        // Beside the channels, so that all columns are one variable.
        let is_channel = |variable: &u32| !d.maps[0].mentions(*variable);
        let beside = own.iter().position(is_channel).unwrap_or_default();
        let kernel = stacked(m.graph, &over, &kernels, beside as u32);
        let mut node = d.clone();
        let neighbours = Size::from(self.neighbours);
        let reach = d.size_of(self.along) + Size::from(self.offset + self.neighbours - 1);
        node.variables[self.along as usize].axis = Axis::new("group", reach.floor_div(&neighbours));
        node.variables[self.tap as usize].axis = taps;
        node.variables.push(Variable::over(&Axis::new("part", neighbours.clone())));
        let part = node.variables.len() as u32 - 1;
        let output = &d.outputs[0].variables;
        let row = output.iter().position(|variable| *variable == self.along)?;
        let mut own_output = output.clone();
        own_output.insert(row + 1, part);
        node.outputs = vec![Output { variables: own_output, ..d.outputs[0].clone() }];
        let [result, tap] = read([self.along, self.tap, part].map(IndexExpr::variable));
        let position = |variable: u32| match variable {
            _ if variable == self.along => result.clone(),
            _ if variable == self.tap => tap.clone(),
            _ => IndexExpr::variable(variable),
        };
        let positions: Vec<IndexExpr> = (0..d.variables.len() as u32).map(position).collect();
        let mut map = compose(&d.maps[0], &positions, &|variable| node.size_of(variable));
        let holds = |condition: &Condition| match condition {
            Condition::Divisible { expression, divisor } => is_multiple(expression, divisor),
            Condition::Range { .. } => false,
        };
        map.conditions.retain(|condition| !holds(condition));
        // A neighbour's zeros multiply what lies outside for the others.
        let map = if map.fill.is_some() { map } else { map.with_fill(Literal::zero(of_input)) };
        own.insert(beside, part);
        let own = IndexMap::of_variables(own);
        let value = build::add(m.graph, &node, vec![Read { value: x, map }, Read { value: kernel, map: own }]);
        let over = output_frame(d);
        let size = |variable: u32| over.size_of(variable);
        let mut exprs: Vec<IndexExpr> = (0..output.len() as u32).map(IndexExpr::variable).collect();
        let place = exprs[row].plus_size(&Size::from(self.offset));
        exprs.insert(row + 1, place.remainder(&neighbours, &size));
        exprs[row] = place.floor_div(&neighbours, &size);
        Some(build::view(m.graph, &over, Read { value, map: IndexMap::new(exprs) }))
    }
}

/// The product `d` of `x` and `w` over groups of neighbours.
fn side_by_side(m: &mut Match) -> Option<Id> {
    let d = m.node("d");
    let Place { tap, along, taps, neighbours } = Place::new(&d)?;
    let grouped = Grouped { along, tap, taps: taps + neighbours - 1, neighbours, offset: 0 };
    // Each neighbour's kernel is where it slides to.
    let at = |number: i64, tap: IndexExpr| tap.plus_size(&Size::from(-number));
    let read = |[group, tap, _]: [IndexExpr; 3]| [group.times(&Size::from(neighbours)), tap];
    grouped.build(m, &d, &at, &read)
}

/// The product `d` of `x` and `w`, which skips positions of `x`, over groups of as many results.
fn by_residues(m: &mut Match) -> Option<Id> {
    let d = m.node("d");
    let columns = count_columns(&d)?;
    let (along, tap, stride, offset) = d.maps[0].conditions.iter().find_map(|condition| {
        let Condition::Divisible { expression, divisor } = condition else { return None };
        let (along, tap) = result_and_tap(&d, expression)?;
        let is_plain = expression.coefficient(along).is(1) && expression.coefficient(tap).is(-1);
        let (stride, offset) = (divisor.as_constant()?, expression.offset().as_constant()?);
        let is_small = (2..=MOST_NEIGHBOURS).contains(&stride) && (0..MOST_OFFSET).contains(&offset);
        // With more columns, every residue has a kernel, unless there are too many.
        let is_few = columns <= FEW_COLUMNS || stride > MOST_KERNELS;
        (is_plain && is_small && is_few && expression.is_affine() && !d.maps[1].mentions(along))
            .then_some((along, tap, stride, offset))
    })?;
    let taps = d.size_of(tap).as_constant().filter(|taps| *taps > 0)?;
    let each = (taps + stride - 1) / stride;
    let grouped = Grouped { along, tap, taps: each, neighbours: stride, offset };
    let at = |number: i64, tap: IndexExpr| tap.times(&Size::from(stride)).plus_size(&Size::from(number));
    let read = |[group, tap, part]: [IndexExpr; 3]| {
        let of = |position: IndexExpr| position.times(&Size::from(stride)).plus(&part);
        [of(group).plus_size(&Size::from(-offset)), of(tap)]
    };
    grouped.build(m, &d, &at, &read)
}

const SKIPPING: Rule = Rule {
    name: "residues-as-channels",
    class: Class::Real,
    law: "s neighbouring results of a kernel over an input with s - 1 zeros between positions are one result over the input with s times the channels, each of every s-th tap",
    source: "sub-pixel convolution (Shi et al., 2016)",
    find: Find::Patterns(&["(dot ?d ?x ?w)"], by_residues),
    guard: &[Conjunct {
        text: "between its positions and outside of them the input is zero",
        holds: |m| m.node("d").maps[0].fill.is_none_or(|fill| fill.is(0.)),
        counterexample: "axis e = 4   axis f = 2   axis h = a * 2   param @k: f32[b, f, e]
fn @f(%x: f32[b, a]) -> f32[f, h] {
  %r = dot order=(e, b) : %x[{b}, (h - {e} + 1) // 2] where (h - e + 1) % 2 == 0 else 1.0, @k[{b}, f, {e}] -> [f, h]
  return %r
}",
    }],
    examples: &[
        "axis e = 4   axis f = 2   axis h = a * 2   param @k: f32[b, f, e]
fn @f(%x: f32[b, a]) -> f32[f, h] {
  %r = dot order=(e, b) : %x[{b}, (h - {e} + 1) // 2] where (h - e + 1) % 2 == 0 else 0.0, @k[{b}, f, {e}] -> [f, h]
  return %r
}",
        "axis e = 3   axis f = 3   axis h = a * 2   axis w = b * 3   param @k: f32[d, f, e, e]
fn @f(%x: f32[a, b, d]) -> f32[f, h, w] {
  %r = dot order=(e, e', d) : %x[(h - {e} + 1) // 2, (w - {e'}) // 3, {d}] where (h - e + 1) % 2 == 0 and (w - e') % 3 == 0 else 0.0, @k[{d}, f, {e}, {e'}] -> [f, h, w]
  return %r
}",
        "axis e = 4   axis f = 2   axis h = a * 2   param @k: i8[b, f, e]
fn @f(%x: u8[b, a]) -> i32[f, h] {
  %r = dot order=(e, b) : %x[{b}, (h - {e} + 1) // 2] where (h - e + 1) % 2 == 0 else 0, @k[{b}, f, {e}] -> [f, h]
  return %r
}",
    ],
};

const SLIDING: Rule = Rule {
    name: "neighbours-as-channels",
    class: Class::Real,
    law: "n neighbouring results of a kernel are one result with n times the channels, of the kernel moved by 0 to n - 1 positions",
    source: "register tiling along a row of the image, as a product",
    find: Find::Patterns(&["(dot ?d ?x ?w)"], side_by_side),
    guard: &[Conjunct {
        text: "what is read outside of x is finite: the neighbours' zeros multiply it",
        holds: |m| m.node("d").maps[0].fill.is_none_or(|fill| fill.to_f64().is_finite()),
        counterexample: "axis e = 3   axis f = 2   param @k: f32[f, b, e]
fn @f(%x: f32[b, a]) -> f32[f, a] {
  %r = dot order=(e, b) : %x[{b}, a + {e} - 1] else -inf, @k[f, {b}, {e}] -> [f, a]
  return %r
}",
    }],
    examples: &[
        "axis e = 3   axis f = 2   param @k: f32[f, b, e]
fn @f(%x: f32[b, a]) -> f32[f, a] {
  %r = dot order=(e, b) : %x[{b}, a + {e} - 1] else 0.0, @k[f, {b}, {e}] -> [f, a]
  return %r
}",
        "axis e = 5   axis h = a + 4   axis w = b + 4   param @k: f32[e, e, d]
fn @f(%x: f32[c, h, w, d]) -> f32[c, a, b] {
  %r = dot order=(e, e', d) : %x[c, a + {e}, b + {e'}, {d}], @k[{e}, {e'}, {d}] -> [c, a, b]
  return %r
}",
        "axis e = 3   axis f = 2   param @k: i8[f, b, e]
fn @f(%x: u8[b, a]) -> i32[f, a] {
  %r = dot order=(e, b) : %x[{b}, a + {e} - 1] else 5, @k[f, {b}, {e}] -> [f, a]
  return %r
}",
    ],
};

pub const RULES: &[Rule] = &[SLIDING, SKIPPING];
