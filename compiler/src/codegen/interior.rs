//! The interior of a range: the positions where no read of a block lies outside of its array.
//!
//! Where reads have guards that differ between positions, vectors run over the interior, and the positions around it are
//! taken one by one. A fold reads many places for each position: there the interior is where all of them lie inside.

use super::emit::Emitter;
use crate::plan::kernel::{Block, Instruction};
use cranelift_codegen::ir::{InstBuilder, Value};
use rustc_hash::FxHashMap;
use strang_ir::{Condition, IndexExpr, Size};

/// The conditions on the reads of a block that differ between positions of a variable.
pub struct Interior {
    variable: u32,
    conditions: Vec<Condition>,
    /// What holds where the conditions hold for all positions of the contracted variables.
    limits: Vec<Limit>,
}

/// `low <= expression < high`.
struct Limit {
    expression: IndexExpr,
    low: Size,
    high: Size,
}

impl Interior {
    /// The interior of a block along a variable, for all positions of `contracted`. Loads count where `is_read` says so.
    /// `None` when a condition is none that a range solves.
    pub fn new(
        emitter: &Emitter<'_>,
        block: &Block,
        variable: u32,
        contracted: &[u32],
        is_read: &dyn Fn(usize) -> bool,
    ) -> Option<Self> {
        let mut interior = Interior { variable, conditions: Vec::new(), limits: Vec::new() };
        for (position, instruction) in block.instructions.iter().enumerate() {
            let Instruction::Load(access) = instruction else { continue };
            if !is_read(position) {
                continue;
            }
            let kernel = emitter.kernel;
            for condition in kernel.accesses[*access as usize].guard.iter().flat_map(|guard| &guard.conditions) {
                let expression = condition.expression();
                // A condition that is the same for all positions is a branch around the vector load.
                if emitter.always(condition)
                    || interior.conditions.contains(condition)
                    || !emitter.expression_mentions(expression, variable)
                {
                    continue;
                }
                let Condition::Range { expression, low, high } = condition else { return None };
                let coefficient = expression.coefficient(variable).as_constant();
                if !emitter.is_linear(expression, variable) || coefficient.is_none_or(|c| c.abs() >= 1 << 30) {
                    return None;
                }
                for expression in extremes(emitter, expression, contracted)? {
                    interior.limits.push(Limit { expression, low: low.clone(), high: high.clone() });
                }
                interior.conditions.push(condition.clone());
            }
        }
        Some(interior)
    }

    /// Whether the conditions are the same at all positions.
    pub fn is_everywhere(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Emits what runs over the interior alone, where its conditions need no code.
    pub fn assumed<T>(&self, emitter: &mut Emitter<'_>, body: impl FnOnce(&mut Emitter<'_>) -> T) -> T {
        emitter.scopes.push(FxHashMap::default());
        emitter.assumed.push(self.conditions.clone());
        let result = body(emitter);
        emitter.assumed.pop();
        emitter.scopes.pop();
        result
    }

    /// The part of a range in which all conditions hold.
    pub fn range(&self, emitter: &mut Emitter<'_>, (low, high): (Value, Value)) -> (Value, Value) {
        let (mut start, mut end) = (low, high);
        for Limit { expression, low: least, high: limit } in &self.limits {
            let Some(coefficient) = expression.coefficient(self.variable).as_constant() else { continue };
            let rest = expression.plus(&IndexExpr::variable(self.variable).times(&Size::from(-coefficient)));
            let rest = emitter.index(&rest);
            let (least, limit) = (emitter.size(least), emitter.size(limit));
            // coefficient * v >= first and coefficient * v < last
            let first = emitter.builder.ins().isub(least, rest);
            let last = emitter.builder.ins().isub(limit, rest);
            let (first, last) = if coefficient > 0 {
                (emitter.ceil_div(first, coefficient), emitter.ceil_div(last, coefficient))
            } else {
                // -c * v >= first is v < floor(-first / c) + 1; -c * v < last is v >= floor(-last / c) + 1.
                let beyond = |emitter: &mut Emitter<'_>, bound: Value| {
                    let negated = emitter.builder.ins().ineg(bound);
                    let up = emitter.builder.ins().iadd_imm_s(negated, 1);
                    emitter.ceil_div(up, -coefficient)
                };
                (beyond(emitter, last), beyond(emitter, first))
            };
            start = emitter.larger(start, first);
            end = emitter.smaller(end, last);
        }
        let start = emitter.smaller(start, high);
        let end = emitter.larger(end, start);
        (start, end)
    }
}

/// The least and the largest value of an expression over all positions of some variables, as expressions in the others: once
/// where they are equal. `None` where it is not linear in one of them with a coefficient that is a number.
fn extremes(emitter: &Emitter<'_>, expression: &IndexExpr, over: &[u32]) -> Option<Vec<IndexExpr>> {
    let (mut least, mut largest) = (expression.clone(), expression.clone());
    for variable in over.iter().copied().filter(|variable| emitter.expression_mentions(expression, *variable)) {
        if !emitter.is_linear(expression, variable) {
            return None;
        }
        let coefficient = expression.coefficient(variable).as_constant()?;
        let without = |e: &IndexExpr| e.plus(&IndexExpr::variable(variable).times(&Size::from(-coefficient)));
        let reach = (emitter.extent(variable) - Size::ONE) * Size::from(coefficient);
        (least, largest) = (without(&least), without(&largest));
        let far = if coefficient > 0 { &mut largest } else { &mut least };
        *far = far.plus_size(&reach);
    }
    Some(if least == largest { vec![least] } else { vec![least, largest] })
}
