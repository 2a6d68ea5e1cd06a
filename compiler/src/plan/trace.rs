//! Where a read really goes: through views down to the array that holds the elements.

use strang_ir::{Atom, Condition, Function, IndexExpr, IndexMap, Literal, Node, Op, Size, Value};

/// A read of a value at a position, with what limits it.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// The value that is read.
    pub value: Value,
    /// One expression per axis of the value.
    pub position: Vec<IndexExpr>,
    /// When given, positions where a condition fails read the literal.
    pub guard: Option<(Vec<Condition>, Literal)>,
}

/// The read of operand `slot` of a node, in the node's own variables.
pub fn operand_trace(function: &Function, node: &Node, slot: usize, value: Value) -> Trace {
    let identity: Vec<IndexExpr> = (0..node.variables.len() as u32).map(IndexExpr::variable).collect();
    through_map(function, &node.maps[slot], value, &identity, None, &|v| node.size_of(v))
}

/// A map whose variables stand at the given positions, in the variables of those.
pub fn compose(map: &IndexMap, positions: &[IndexExpr], size: &dyn Fn(u32) -> Size) -> IndexMap {
    let place = |expression: &IndexExpr| {
        recombined(&expression.substitute(&|v| positions[v as usize].clone(), &|slot| slot, size), size)
    };
    let condition = |condition: &Condition| match condition {
        Condition::Range { expression, low, high } => {
            Condition::Range { expression: place(expression), low: low.clone(), high: high.clone() }
        }
        Condition::Divisible { expression, divisor } => {
            Condition::Divisible { expression: place(expression), divisor: divisor.clone() }
        }
    };
    IndexMap {
        exprs: map.exprs.iter().map(place).collect(),
        conditions: map.conditions.iter().map(condition).collect(),
        fill: map.fill,
    }
}

/// The read of `value` through `map`, whose variables have the given positions, under the guard of what reads it.
pub fn through_map(
    function: &Function,
    map: &IndexMap,
    value: Value,
    positions: &[IndexExpr],
    outer: Option<(Vec<Condition>, Literal)>,
    variable_size: &dyn Fn(u32) -> Size,
) -> Trace {
    let map = compose(map, positions, variable_size);
    let mut guard = outer;
    if let Some(fill) = map.fill {
        let (conditions, _) = guard.get_or_insert_with(|| (Vec::new(), fill));
        for (expr, size) in map.exprs.iter().zip(function.shape_of(value)) {
            if !within(expr, &size, variable_size) {
                conditions.push(Condition::Range { expression: expr.clone(), low: Size::ZERO, high: size });
            }
        }
        conditions.extend(map.conditions);
        leave_out_implied(conditions, variable_size);
        if conditions.is_empty() {
            guard = None;
        }
    }
    Trace { value, position: map.exprs, guard }
}

/// Leaves out conditions that follow from the others: that `w * row + column` lies in an array, where row and column lie in an
/// image. What is left can be told apart by axis, as convolutions want it.
fn leave_out_implied(conditions: &mut Vec<Condition>, variable_size: &dyn Fn(u32) -> Size) {
    let mut position = 0;
    while position < conditions.len() {
        let condition = conditions.remove(position);
        if !follows(&condition, conditions, variable_size) {
            conditions.insert(position, condition);
            position += 1;
        }
    }
}

/// Whether a range holds wherever others do, its expression being a sum of multiples of theirs.
fn follows(condition: &Condition, others: &[Condition], variable_size: &dyn Fn(u32) -> Size) -> bool {
    let (expression, low, high) = match condition {
        Condition::Range { expression, low, high } => (expression, low, high),
        Condition::Divisible { expression, divisor } => return is_multiple(expression, divisor),
    };
    let mut rest = expression.clone();
    let (mut least, mut largest) = (Size::ZERO, Size::ZERO);
    for other in others {
        let Condition::Range { expression: part, low: from, high: end } = other else { continue };
        let Some((variable, one)) = part.terms().first().and_then(|(atom, one)| match atom {
            Atom::Variable(variable) => Some((*variable, one)),
            _ => None,
        }) else {
            continue;
        };
        let times = rest.coefficient(variable);
        let left = rest.plus(&part.times(&(&Size::ZERO - &times)));
        let is_shorter = left.terms().len() + part.terms().len() == rest.terms().len();
        if one.is(1) && is_shorter && times.lower_bound(1).is_some_and(|times| times > 0) {
            least += &times * from;
            largest += &times * (end - &Size::ONE);
            rest = left;
        }
    }
    let Some((first, last)) = rest.bounds(variable_size) else { return false };
    let is_at_least = |a: Size, b: &Size| (a - b).lower_bound(1).is_some_and(|difference| difference >= 0);
    is_at_least(least + first, low) && is_at_least(high - &Size::ONE, &(largest + last))
}

/// Whether a number divides an expression wherever its variables are.
pub fn is_multiple(expression: &IndexExpr, divisor: &Size) -> bool {
    let Some(divisor) = divisor.as_constant().filter(|divisor| *divisor != 0) else { return false };
    let divides = |size: &Size| size.as_constant().is_some_and(|number| number % divisor == 0);
    divides(expression.offset()) && expression.terms().iter().all(|(_, factor)| divides(factor))
}

/// Follows a read through views that are not arrays of their own.
pub fn through_views(
    function: &Function,
    mut trace: Trace,
    is_virtual: &dyn Fn(Value) -> bool,
    variable_size: &dyn Fn(u32) -> Size,
) -> Trace {
    while is_virtual(trace.value) && matches!(function.graph[trace.value.node].op, Op::View) {
        let node = &function.graph[trace.value.node];
        let operand = function.operands(trace.value.node)[0];
        let positions = variable_positions(node, 0, &trace.position);
        trace = through_map(function, &node.maps[0], operand, &positions, trace.guard, variable_size);
    }
    trace
}

/// One expression per variable of a node, from one expression per axis of an output. Variables that the output does not
/// have read as 0 (views and maps have none).
pub fn variable_positions(node: &Node, port: u32, position: &[IndexExpr]) -> Vec<IndexExpr> {
    let mut positions = vec![IndexExpr::default(); node.variables.len()];
    for (variable, expr) in node.outputs[port as usize].variables.iter().zip(position) {
        positions[*variable as usize] = expr.clone();
    }
    positions
}

/// Whether an expression stays in `0..size` for all values of its variables.
pub fn within(expr: &IndexExpr, size: &Size, variable_size: &dyn Fn(u32) -> Size) -> bool {
    expr.bounds(variable_size).is_some_and(|(low, high)| {
        low.lower_bound(1).is_some_and(|low| low >= 0) && size.is_at_least(&(high + Size::ONE), 1)
    })
}

/// The expression with quotient and remainder of one expression put together again: `d*(e // d) + e % d` is `e`. So a
/// split axis that is stored densely reads like the whole.
pub fn recombined(expr: &IndexExpr, variable_size: &dyn Fn(u32) -> Size) -> IndexExpr {
    let mut current = expr.clone();
    loop {
        let pair = current.terms().iter().find_map(|(atom, coefficient)| {
            let Atom::Remainder(inner, divisor) = atom else { return None };
            let quotient = inner.floor_div(divisor, variable_size);
            // `inner // d` may have simplified to terms; all of them must be there, `d` times.
            let wanted = quotient.times(&(coefficient * divisor));
            let present = wanted
                .terms()
                .iter()
                .all(|(atom, wanted)| current.terms().iter().any(|(other, found)| other == atom && found == wanted));
            (present && !wanted.terms().is_empty()).then(|| {
                let removed = wanted.plus(&IndexExpr::new([(atom.clone(), coefficient.clone())], Size::ZERO));
                current.plus(&removed.times(&Size::from(-1))).plus(&inner.times(coefficient))
            })
        });
        match pair {
            Some(simpler) => current = simpler,
            None => return current,
        }
    }
}

/// The variables, when every expression is a different plain variable.
pub fn distinct_variables(position: &[IndexExpr]) -> Option<Vec<u32>> {
    let variables: Option<Vec<u32>> = position.iter().map(IndexExpr::as_variable).collect();
    variables.filter(|variables| (1..variables.len()).all(|i| !variables[..i].contains(&variables[i])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_that_follow_from_others_are_left_out() {
        let [row, column] = [0, 1].map(IndexExpr::variable);
        let range =
            |expression: IndexExpr, high: i64| Condition::Range { expression, low: Size::ZERO, high: high.into() };
        let position = |width: i64| row.times(&width.into()).plus(&column).plus_size(&(-width - 1).into());
        let in_row = || range(row.plus_size(&(-1).into()), 6);
        let in_column = || range(column.plus_size(&(-1).into()), 8);
        let left = |mut conditions: Vec<Condition>| {
            leave_out_implied(&mut conditions, &|_| Size::from(10));
            conditions
        };
        let both = vec![in_row(), in_column()];
        assert_eq!(left(vec![range(position(8), 48), in_row(), in_column()]), both);
        assert_eq!(left(vec![in_row(), in_column(), range(position(8), 48)]), both);
        let needed = vec![range(position(8), 47), in_row(), in_column()];
        assert_eq!(left(needed.clone()), needed);
        let alone = vec![range(position(8), 48), in_row()];
        assert_eq!(left(alone.clone()), alone);
    }

    #[test]
    fn split_axes_recombine() {
        let m = IndexExpr::variable(0);
        let size = |_| Size::from(384);
        let (head, rest) = (m.floor_div(&32.into(), &size), m.remainder(&32.into(), &size));
        let address = head.times(&32.into()).plus(&rest).plus(&IndexExpr::variable(1).times(&384.into()));
        let expected = m.plus(&IndexExpr::variable(1).times(&384.into()));
        assert_eq!(recombined(&address, &size), expected);
        let strided = head.times(&64.into()).plus(&rest);
        assert_eq!(recombined(&strided, &size), strided);
    }
}
