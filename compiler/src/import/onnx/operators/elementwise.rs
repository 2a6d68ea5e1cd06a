//! Operators that compute every element of the result from one element of each operand: arithmetic, comparisons, logic,
//! bits, choices and conversions.

use super::scalar::{add, apply, cast, div, less, max, min, mul, number, operand, pow, sub};
use crate::import::onnx::{
    attributes::Attributes,
    call::{Call, Imported},
    data::{data_type_number, element_type},
    error::ImportError,
    values::Item,
};
use strang_ir::{
    Literal, ScalarExpr, Value,
    scalar::{Binary, Unary},
};
use strang_runtime::{ElementType, Size};

/// A scalar expression of items that broadcast against each other. Numbers become literals of the expression.
///
/// # Errors
/// Shapes that do not broadcast, or element types that the expression does not take.
pub fn combine(
    call: &mut Call,
    items: &[Item],
    build: impl FnOnce(&[ScalarExpr]) -> ScalarExpr,
) -> Result<Value, ImportError> {
    let mut values = Vec::new();
    let mut leaves = Vec::with_capacity(items.len());
    let all_numbers = items.iter().all(|item| item.literal().is_some());
    for item in items {
        match item.literal() {
            Some(literal) if !all_numbers => leaves.push(ScalarExpr::Literal(literal)),
            _ => {
                leaves.push(operand(values.len() as u32));
                values.push(call.importer.materialise(item)?);
            }
        }
    }
    let shapes: Vec<_> = items.iter().map(|item| call.importer.shape_of_item(item)).collect();
    let sizes = call.broadcast(&shapes)?;
    call.map_over(&values, build(&leaves), &sizes)
}

fn present(call: &Call, slot: usize) -> Result<Item, ImportError> {
    match call.item(slot) {
        Item::Absent => Err(call.operand_error(slot, "this input is missing")),
        item => Ok(item),
    }
}

/// A function of the first operand.
///
/// # Errors
/// An operand that is missing or of a type that the function does not take.
pub fn of_one(call: &mut Call, build: impl FnOnce(ScalarExpr) -> ScalarExpr) -> Imported {
    let item = present(call, 0)?;
    Ok(vec![combine(call, &[item], |leaves| build(leaves[0].clone()))?.into()])
}

/// A function of the first two operands.
fn of_two(call: &mut Call, build: impl FnOnce(ScalarExpr, ScalarExpr) -> ScalarExpr) -> Imported {
    let second = aligned(call)?;
    let items = [present(call, 0)?, second];
    Ok(vec![combine(call, &items, |leaves| build(leaves[0].clone(), leaves[1].clone()))?.into()])
}

/// The second operand under the shape with which it broadcasts. Up to opset 6 the attribute `broadcast` asks for that, and
/// the operand's axes begin at `axis` of the first operand; slopes of `PRelu` belong to channels.
fn aligned(call: &mut Call) -> Result<Item, ImportError> {
    let item = present(call, 1)?;
    if call.version >= 7 {
        return Ok(item);
    }
    let (to, mut sizes) = (call.shape(0)?, call.shape(1)?);
    let first = if call.operator == "PRelu" {
        (sizes.len() == 1 && !sizes[0].is(1) && to.len() > 1).then_some(1)
    } else if call.attributes.flag("broadcast", false)? {
        call.attributes.int("axis")?.map(|axis| call.axis(axis, to.len())).transpose()?
    } else {
        call.attributes.ignore(&["axis"]);
        if to.len() != sizes.len() {
            return Err(call.error(format!("{sizes:?} does not broadcast to {to:?} without the attribute `broadcast`")));
        }
        None
    };
    let Some(first) = first else { return Ok(item) };
    let behind = to.len().checked_sub(first + sizes.len());
    let behind = behind.ok_or_else(|| call.error(format!("{sizes:?} does not fit {to:?} from axis {first} on")))?;
    sizes.extend(vec![Size::ONE; behind]);
    super::shape::reshaped(call, &item, &sizes)
}

/// The operators that are one function of one value.
pub fn unary(call: &mut Call) -> Imported {
    let function = match call.operator {
        "Abs" => Unary::Absolute,
        "Acos" => Unary::Acos,
        "Acosh" => Unary::Acosh,
        "Asin" => Unary::Asin,
        "Asinh" => Unary::Asinh,
        "Atan" => Unary::Atan,
        "Atanh" => Unary::Atanh,
        "Ceil" => Unary::Ceil,
        "Cos" => Unary::Cos,
        "Cosh" => Unary::Cosh,
        "Erf" => Unary::Erf,
        "Exp" => Unary::Exp,
        "Floor" => Unary::Floor,
        "HardSwish" => Unary::HardSwish,
        "IsNaN" => Unary::IsNan,
        "Log" => Unary::Log,
        "Mish" => Unary::Mish,
        "Neg" => Unary::Negate,
        "Not" | "BitwiseNot" => Unary::Not,
        "Reciprocal" => Unary::Reciprocal,
        "Relu" => Unary::Relu,
        "Round" => Unary::Round,
        "Sigmoid" => Unary::Sigmoid,
        "Sign" => Unary::Sign,
        "Sin" => Unary::Sin,
        "Sinh" => Unary::Sinh,
        "Softplus" => Unary::Softplus,
        "Sqrt" => Unary::SquareRoot,
        "Tan" => Unary::Tan,
        "Tanh" => Unary::Tanh,
        other => return Err(call.unsupported(format!("`{other}` is not a function of one value"))),
    };
    let element = call.element(0)?;
    // Absolute values and signs of unsigned integers have nothing to do.
    if function == Unary::Absolute && element.is_integer() && !element.is_signed_integer() {
        return Ok(vec![call.item(0)]);
    }
    of_one(call, |x| apply(function, x))
}

/// The operators that are one function of two values of one type.
pub fn binary(call: &mut Call) -> Imported {
    let function = match call.operator {
        "Add" => Binary::Add,
        "Sub" => Binary::Subtract,
        "Mul" => Binary::Multiply,
        "Div" => Binary::Divide,
        "And" | "BitwiseAnd" => Binary::And,
        "Or" | "BitwiseOr" => Binary::Or,
        "Xor" | "BitwiseXor" => Binary::Xor,
        "Equal" => Binary::Equal,
        "Less" => Binary::Less,
        "LessOrEqual" => Binary::LessOrEqual,
        "Greater" => Binary::Greater,
        "GreaterOrEqual" => Binary::GreaterOrEqual,
        "BitShift" => match call.attributes.string_or("direction", "")? {
            "LEFT" => Binary::ShiftLeft,
            "RIGHT" => Binary::ShiftRight,
            other => return Err(call.attributes.error("direction", format!("`{other}` is neither LEFT nor RIGHT"))),
        },
        "Mod" => match call.attributes.flag("fmod", false)? {
            true => Binary::Remainder,
            false => Binary::Modulo,
        },
        other => return Err(call.unsupported(format!("`{other}` is not a function of two values"))),
    };
    of_two(call, |a, b| ScalarExpr::binary(function, a, b))
}

/// `Max`, `Min`, `Sum` and `Mean` of any number of operands.
pub fn variadic(call: &mut Call) -> Imported {
    let count = call.operands.len();
    let items = (0..count).map(|slot| present(call, slot)).collect::<Result<Vec<_>, _>>()?;
    let element = call.element(0)?;
    let operator = call.operator;
    if count == 1 {
        return Ok(items);
    }
    let value = combine(call, &items, |leaves| {
        let function = match operator {
            "Max" => Binary::Maximum,
            "Min" => Binary::Minimum,
            _ => Binary::Add,
        };
        let mut leaves = leaves.iter().cloned();
        let first = leaves.next().unwrap_or_else(|| number(element, 0.));
        let all = leaves.fold(first, |sum, next| ScalarExpr::binary(function, sum, next));
        if operator == "Mean" { div(all, number(element, count as f64)) } else { all }
    })?;
    Ok(vec![value.into()])
}

/// `Pow`: the result has the type of the base, whatever the exponent's is.
pub fn power(call: &mut Call) -> Imported {
    let (base, exponent) = (call.element(0)?, call.element(1)?);
    of_two(call, |a, b| {
        if exponent.is_float() && !base.is_float() {
            return cast(base, exponent, pow(cast(exponent, base, a), b));
        }
        pow(a, cast(base, exponent, b))
    })
}

/// `Clip`: limits are attributes up to opset 10, then operands.
pub fn clip(call: &mut Call) -> Imported {
    let element = call.element(0)?;
    let mut limits = [call.item(1), call.item(2)];
    if call.version < 11 {
        let limit = |value: f32| Item::constant("limit", strang_runtime::Tensor::scalar(value));
        let (low, high) = (call.attributes.float("min")?, call.attributes.float("max")?);
        limits = [low.map_or(Item::Absent, limit), high.map_or(Item::Absent, limit)];
    }
    let elements = [call.importer.element_of_item(&limits[0]), call.importer.element_of_item(&limits[1])];
    let mut items = vec![present(call, 0)?];
    let given: Vec<usize> = (0..2).filter(|limit| !limits[*limit].is_absent()).collect();
    if given.is_empty() {
        return Ok(items);
    }
    items.extend(given.iter().map(|limit| limits[*limit].clone()));
    let value = combine(call, &items, |leaves| {
        given.iter().zip(&leaves[1..]).fold(leaves[0].clone(), |x, (limit, leaf)| {
            let leaf = cast(element, elements[*limit], leaf.clone());
            if *limit == 0 { max(x, leaf) } else { min(x, leaf) }
        })
    })?;
    Ok(vec![value.into()])
}

/// `Where`.
pub fn choose(call: &mut Call) -> Imported {
    let items = [present(call, 0)?, present(call, 1)?, present(call, 2)?];
    let value = combine(call, &items, |leaves| match leaves {
        [condition, yes, no] => ScalarExpr::select(condition.clone(), yes.clone(), no.clone()),
        _ => unreachable!("combine yields a leaf per item"),
    })?;
    Ok(vec![value.into()])
}

/// `Cast` and `CastLike`.
pub fn convert(call: &mut Call) -> Imported {
    // These two say how to convert to the 8-bit floats, which are not supported anyway.
    call.attributes.ignore(&["saturate", "round_mode"]);
    let to = if call.operator == "CastLike" { call.element(1)? } else { cast_target(&call.attributes, call.version)? };
    let from = call.element(0)?;
    if from == to {
        return Ok(vec![call.item(0)]);
    }
    // Floats to sub-byte integers keep the low bits of the whole number, as wider integers do.
    if from.is_float() && to.is_integer() && to.bits() < 8 {
        return of_one(call, |x| cast(to, ElementType::I32, cast(ElementType::I32, from, x)));
    }
    of_one(call, |x| cast(to, from, x))
}

/// The type that `Cast` makes: a number, before opset 6 a name.
///
/// # Errors
/// No such attribute, or a type that is not supported.
pub fn cast_target(attributes: &Attributes, version: i64) -> Result<ElementType, ImportError> {
    let number = if version < 6 {
        let name = attributes.string_or("to", "")?;
        data_type_number(name).ok_or_else(|| attributes.error("to", format!("`{name}` is no data type")))?
    } else {
        let number = attributes.required_int("to")?;
        i32::try_from(number).map_err(|_| attributes.error("to", "this is no data type"))?
    };
    element_type(number).map_err(|reason| attributes.error("to", reason))
}

/// `Identity`.
pub fn identity(call: &mut Call) -> Imported {
    Ok(vec![present(call, 0)?])
}

/// `Dropout` at inference: the identity, and a mask that keeps everything.
pub fn dropout(call: &mut Call) -> Imported {
    call.attributes.ignore(&["ratio", "seed"]);
    call.ignore_operand(1);
    if call.version < 7 && !call.attributes.flag("is_test", false)? {
        return Err(call.unsupported("dropout in training mode is random; set is_test to 1 for inference"));
    }
    // A ratio of zero drops nothing in training either.
    let keeps_all = call.version >= 12 && call.has(1) && call.given(1).literal().is_some_and(|ratio| ratio.is(0.));
    let trains = call.has(2) && call.given(2).literal().is_none_or(|mode| !mode.is(0.));
    if trains && !keeps_all {
        return Err(call.unsupported("dropout in training mode is random; export the model for inference"));
    }
    let mut items = vec![present(call, 0)?];
    if call.wants(1) {
        let element = if call.version < 10 { call.element(0)? } else { ElementType::Bool };
        let sizes = call.shape(0)?;
        items.push(call.filled(Literal::one(element), &sizes).into());
    }
    Ok(items)
}

/// `IsInf`.
pub fn is_infinite(call: &mut Call) -> Imported {
    let (negative, positive) =
        (call.attributes.flag("detect_negative", true)?, call.attributes.flag("detect_positive", true)?);
    let element = call.element(0)?;
    of_one(call, |x| {
        let infinite = apply(Unary::IsInfinite, x.clone());
        let zero = number(element, 0.);
        let sign = match (negative, positive) {
            (true, true) => return infinite,
            (false, false) => ScalarExpr::Literal(Literal::bool(false)),
            (true, false) => less(x, zero),
            (false, true) => less(zero, x),
        };
        ScalarExpr::binary(Binary::And, infinite, sign)
    })
}

/// Activations with parameters, and those that are short formulas.
pub fn activation(call: &mut Call) -> Imported {
    let element = call.element(0)?;
    let name = call.operator;
    let parameter = |call: &Call, name: &str, default: f32| -> Result<ScalarExpr, ImportError> {
        Ok(super::scalar::attribute(element, call.attributes.float_or(name, default)?))
    };
    let (zero, one) = (number(element, 0.), number(element, 1.));
    let expm1 = |x: ScalarExpr| apply(Unary::ExpMinusOne, x);
    match name {
        "LeakyRelu" => {
            let alpha = parameter(call, "alpha", 0.01)?;
            of_one(call, |x| ScalarExpr::select(less(x.clone(), zero), mul(alpha, x.clone()), x))
        }
        "Elu" => {
            let alpha = parameter(call, "alpha", 1.)?;
            of_one(call, |x| ScalarExpr::select(less(x.clone(), zero), mul(alpha, expm1(x.clone())), x))
        }
        "Selu" => {
            let old = call.version < 6;
            let alpha = parameter(call, "alpha", if old { 1.6732 } else { 1.673_263_2 })?;
            let gamma = parameter(call, "gamma", if old { 1.0507 } else { 1.050_701 })?;
            of_one(call, |x| {
                let inner = ScalarExpr::select(less(zero, x.clone()), x.clone(), mul(alpha, expm1(x)));
                mul(gamma, inner)
            })
        }
        "Celu" => {
            let alpha = parameter(call, "alpha", 1.)?;
            of_one(call, |x| {
                let negative = min(zero.clone(), mul(alpha.clone(), expm1(div(x.clone(), alpha))));
                add(max(zero, x), negative)
            })
        }
        "HardSigmoid" => {
            let (alpha, beta) = (parameter(call, "alpha", 0.2)?, parameter(call, "beta", 0.5)?);
            of_one(call, |x| max(zero, min(one, add(mul(alpha, x), beta))))
        }
        "ThresholdedRelu" => {
            let alpha = parameter(call, "alpha", 1.)?;
            of_one(call, |x| ScalarExpr::select(less(alpha, x.clone()), x, zero))
        }
        "Shrink" => {
            let (bias, limit) = (parameter(call, "bias", 0.)?, call.attributes.float_or("lambd", 0.5)?);
            let (low, high) = (number(element, -f64::from(limit)), number(element, limit.into()));
            of_one(call, |x| {
                let above = ScalarExpr::select(less(high, x.clone()), sub(x.clone(), bias.clone()), zero);
                ScalarExpr::select(less(x.clone(), low), add(x, bias), above)
            })
        }
        "Softsign" => of_one(call, |x| div(x.clone(), add(one, apply(Unary::Absolute, x)))),
        "Swish" => {
            let alpha = call.attributes.float_or("alpha", 1.)?;
            if alpha == 1. {
                return of_one(call, |x| apply(Unary::Silu, x));
            }
            let alpha = super::scalar::attribute(element, alpha);
            of_one(call, |x| mul(x.clone(), apply(Unary::Sigmoid, mul(alpha, x))))
        }
        "SwiGLU" => {
            let alpha = super::scalar::attribute(element, call.attributes.float_or("alpha", 1.)?);
            of_two(call, |a, b| mul(mul(a.clone(), apply(Unary::Sigmoid, mul(alpha, a))), b))
        }
        "Gelu" => {
            let function = match call.attributes.string_or("approximate", "none")? {
                "none" => Unary::Gelu,
                "tanh" => Unary::GeluTanh,
                other => {
                    let reason = format!("`{other}` is neither `none` nor `tanh`");
                    return Err(call.attributes.error("approximate", reason));
                }
            };
            of_one(call, |x| apply(function, x))
        }
        "PRelu" => of_two(call, |x, slope| ScalarExpr::select(less(x.clone(), zero), mul(slope, x.clone()), x)),
        other => Err(call.unsupported(format!("`{other}` is not an activation"))),
    }
}
