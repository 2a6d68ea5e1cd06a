//! Results of two circuits compared: by bits, or over the reals.

use strang_compiler::rewrite::rule::Class;
use strang_ir::{
    ElementType, Module, Op, ScalarExpr, Tensor,
    interpret::{Arithmetic, interpret},
    scalar::{Binary, Unary},
};

/// What differs between two circuits on the same inputs, if anything does.
pub fn difference(class: Class, left: &Module, right: &Module, inputs: &[Tensor]) -> Option<String> {
    match class {
        Class::Bit => bits(left, right, inputs),
        _ => reals(left, right, inputs),
    }
}

/// Equal bits in typed arithmetic; one NaN is as good as another.
fn bits(left: &Module, right: &Module, inputs: &[Tensor]) -> Option<String> {
    let run = |module: &Module| interpret(module, inputs, Arithmetic::Typed);
    let (left, right) = match (run(left), run(right)) {
        (Ok(left), Ok(right)) => (left, right),
        (Err(_), Err(_)) => return None,
        (left, right) => return Some(format!("{:?} against {:?}", left.err(), right.err())),
    };
    for (left, right) in left.iter().zip(&right) {
        if left.shape() != right.shape() || left.element() != right.element() {
            return Some(format!("{left:?} against {right:?}"));
        }
        let values = left.to_f64().into_iter().zip(right.to_f64());
        for (position, (a, b)) in values.enumerate() {
            if left.bits_at(position) != right.bits_at(position) && !(a.is_nan() && b.is_nan()) {
                return Some(format!("element {position} is {a:?} against {b:?}"));
            }
        }
    }
    None
}

/// Equal in wide arithmetic to 1e-10 of the same expression over absolute values, where that is finite.
fn reals(left: &Module, right: &Module, inputs: &[Tensor]) -> Option<String> {
    let absolute_inputs: Vec<Tensor> = inputs.iter().map(absolute_tensor).collect();
    let scale = interpret(&absolute(left), &absolute_inputs, Arithmetic::Wide).ok();
    let run = |module: &Module| interpret(module, inputs, Arithmetic::Wide);
    let (left, right) = match (run(left), run(right)) {
        (Ok(left), Ok(right)) => (left, right),
        (Err(_), Err(_)) => return None,
        (left, right) => return Some(format!("{:?} against {:?}", left.err(), right.err())),
    };
    for (number, (left, right)) in left.iter().zip(&right).enumerate() {
        if left.shape() != right.shape() || left.element() != right.element() {
            return Some(format!("{left:?} against {right:?}"));
        }
        let scales = scale.as_ref().map(|scale| scale[number].to_f64());
        for (position, (a, b)) in left.to_f64().into_iter().zip(right.to_f64()).enumerate() {
            let scale = scales.as_ref().map_or(0., |scales| scales[position].abs());
            let scale = if scale.is_finite() { scale.max(a.abs()) } else { a.abs() };
            if a == b || !a.is_finite() {
                continue;
            }
            if (a - b).abs() > 1e-10 * scale + 1e-300 || b.is_nan() {
                return Some(format!("element {position} is {a:?} against {b:?}, of {scale:?}"));
            }
        }
    }
    None
}

/// The circuit over absolute values: differences become sums, numbers and weights lose their signs.
fn absolute(module: &Module) -> Module {
    let mut module = module.clone();
    for parameter in &mut module.parameters {
        parameter.data = parameter.data.as_ref().map(absolute_tensor);
    }
    for node in module.functions.iter_mut().flat_map(|function| function.graph.node_weights_mut()) {
        if let Op::Map(expression) = &mut node.op {
            *expression = absolute_expression(expression);
        }
    }
    module
}

fn absolute_expression(expression: &ScalarExpr) -> ScalarExpr {
    let inner = absolute_expression;
    match expression {
        ScalarExpr::Unary(Unary::Negate, a) => inner(a),
        ScalarExpr::Unary(function, a) => ScalarExpr::unary(*function, inner(a)),
        ScalarExpr::Binary(Binary::Subtract, a, b) => ScalarExpr::binary(Binary::Add, inner(a), inner(b)),
        ScalarExpr::Binary(function, a, b) => ScalarExpr::binary(*function, inner(a), inner(b)),
        ScalarExpr::Select(a, b, c) => ScalarExpr::select(inner(a), inner(b), inner(c)),
        ScalarExpr::Cast(element, a) => ScalarExpr::cast(*element, inner(a)),
        ScalarExpr::Literal(literal) if literal.element.is_float() => {
            ScalarExpr::Literal(strang_ir::Literal::from_f64(literal.element, literal.to_f64().abs()))
        }
        leaf => leaf.clone(),
    }
}

fn absolute_tensor(tensor: &Tensor) -> Tensor {
    let mut positive = tensor.clone();
    // Signed bytes are quantised numbers; wider integers may be positions.
    if tensor.element().is_float() || tensor.element() == ElementType::I8 {
        for (position, value) in tensor.to_f64().into_iter().enumerate() {
            positive.set_bits(position, strang_ir::Literal::from_f64(tensor.element(), value.abs()).bits);
        }
    }
    positive
}
