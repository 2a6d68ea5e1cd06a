//! Operators of classical machine learning (`ai.onnx.ml`) on numbers.

use super::{
    Operator,
    reduce::reduced,
    scalar::{add, apply, attribute, cast, equal, less, mul, number, operand, sub},
};
use crate::import::onnx::{
    call::{Call, Imported},
    data::element_type,
    draft::Draft,
    error::ImportError,
    values::Item,
};
use strang_ir::{
    Atom, IndexExpr, Literal, Op, ScalarExpr,
    op::Monoid,
    scalar::{Binary, Unary},
};
use strang_runtime::{ElementType, Size, Tensor};

/// The operators of the domain `ai.onnx.ml`.
pub const OPERATORS: &[Operator] = &[
    Operator { name: "ArrayFeatureExtractor", versions: &[1], import: extract_features },
    Operator { name: "Binarizer", versions: &[1], import: binarise },
    Operator { name: "LabelEncoder", versions: &[1, 2, 4], import: encode_labels },
    Operator { name: "LinearRegressor", versions: &[1], import: regress },
    Operator { name: "Scaler", versions: &[1], import: scale },
];

/// `ArrayFeatureExtractor`: columns of the last axis.
pub fn extract_features(call: &mut Call) -> Imported {
    let (x, indices) = (call.value(0)?, call.value(1)?);
    let (from, shape) = (call.shape_of(x), call.shape_of(indices));
    if from.is_empty() {
        return Err(call.error("the input has no axis to choose from"));
    }
    let count: Size = shape.iter().cloned().product();
    let indices = call.reshape(indices, std::slice::from_ref(&count));
    // One row of features keeps its axis of rows.
    let mut sizes = if from.len() == 1 { vec![Size::ONE] } else { from[..from.len() - 1].to_vec() };
    sizes.push(count);
    let (mut draft, variables) = Draft::over(&sizes);
    let mut exprs: Vec<IndexExpr> = variables[..from.len() - 1].iter().map(|v| IndexExpr::variable(*v)).collect();
    exprs.push(IndexExpr::atom(Atom::Read(1)));
    draft.read(x, exprs);
    draft.read_at(indices, &variables[variables.len() - 1..]);
    let element = call.element_of(x);
    Ok(vec![call.emit(draft, Op::Gather, element, &variables).into()])
}

/// `Binarizer`: one above a threshold, zero elsewhere.
pub fn binarise(call: &mut Call) -> Imported {
    let threshold = call.attributes.float_or("threshold", 0.)?;
    let x = call.value(0)?;
    let element = call.element_of(x);
    let above = less(attribute(ElementType::F64, threshold), cast(ElementType::F64, element, operand(0)));
    let bit = ScalarExpr::select(above, number(element, 1.), number(element, 0.));
    Ok(vec![call.map(&[x], bit)?.into()])
}

/// `Scaler`: features less an offset, times a scale, as f32.
pub fn scale(call: &mut Call) -> Imported {
    let x = call.value(0)?;
    let element = call.element_of(x);
    let mut values = vec![x];
    for name in ["offset", "scale"] {
        let numbers = call.attributes.floats(name)?;
        let numbers = numbers.ok_or_else(|| call.attributes.error(name, "these numbers are missing"))?;
        let tensor = Tensor::from_slice(&[numbers.len()], numbers).map_err(|error| call.error(error.to_string()))?;
        let name = format!("{}_{name}", call.importer.origin.base);
        values.push(call.importer.materialise(&Item::constant(name, tensor))?);
    }
    let wide = cast(ElementType::F32, element, operand(0));
    Ok(vec![call.map(&values, mul(sub(wide, operand(1)), operand(2)))?.into()])
}

/// `LinearRegressor`: one linear function a target.
pub fn regress(call: &mut Call) -> Imported {
    let after = call.attributes.string_or("post_transform", "NONE")?;
    if after != "NONE" {
        return Err(call.attributes.error("post_transform", format!("`{after}` is not supported; NONE is")));
    }
    let targets = usize::try_from(call.attributes.int_or("targets", 1)?).unwrap_or(0);
    let coefficients = call.attributes.floats("coefficients")?.unwrap_or_default();
    if targets == 0 || coefficients.is_empty() || coefficients.len() % targets != 0 {
        let reason = format!("{} coefficients are not those of {targets} functions", coefficients.len());
        return Err(call.attributes.error("coefficients", reason));
    }
    let x = call.value(0)?;
    let sizes = call.shape_of(x);
    let features = Size::from((coefficients.len() / targets) as i64);
    if sizes.len() != 2 || sizes[1].as_constant().is_some_and(|size| features != Size::from(size)) {
        return Err(call.error(format!("the input must be [rows, {features}], but is {sizes:?}")));
    }
    let float = ElementType::F32;
    let x = super::signal::in_float(call, x, float)?;
    let constant = |call: &mut Call, name: &str, shape: &[usize], values: &[f32]| {
        let tensor = Tensor::from_slice(shape, values).map_err(|error| call.error(error.to_string()))?;
        let name = format!("{}_{name}", call.importer.origin.base);
        call.importer.materialise(&Item::constant(name, tensor))
    };
    let matrix = constant(call, "coefficients", &[targets, coefficients.len() / targets], coefficients)?;
    let (mut draft, output) = Draft::over(&[sizes[0].clone(), Size::from(targets as i64)]);
    let feature = draft.variable(&features);
    draft.read_at(x, &[output[0], feature]);
    draft.read_at(matrix, &[output[1], feature]);
    let product = call.emit(draft, Op::Dot { accumulator: float }, float, &output);
    let Some(intercepts) = call.attributes.floats("intercepts")? else { return Ok(vec![product.into()]) };
    let intercepts = constant(call, "intercepts", &[intercepts.len()], intercepts)?;
    Ok(vec![call.map(&[product, intercepts], add(operand(0), operand(1)))?.into()])
}

/// The constant that one of several attributes holds: a list of integers, a list of floats, or a tensor.
fn listed(call: &Call, what: &str) -> Result<Tensor, ImportError> {
    if call.attributes.has(&format!("{what}_strings")) {
        let reason = "strings are an unsupported data type; numbers are supported";
        return Err(call.attributes.error(&format!("{what}_strings"), reason));
    }
    let made = |tensor: Result<Tensor, strang_runtime::tensor::TensorError>| {
        tensor.map_err(|error| call.error(error.to_string()))
    };
    if let Some(values) = call.attributes.ints(&format!("{what}_int64s"))? {
        return made(Tensor::from_slice(&[values.len()], values));
    }
    if let Some(values) = call.attributes.floats(&format!("{what}_floats"))? {
        return made(Tensor::from_slice(&[values.len()], values));
    }
    match call.attributes.tensor(&format!("{what}_tensor"))? {
        Some(proto) => {
            // The error names the type where it is one that there are no numbers for.
            element_type(proto.data_type).map_err(|reason| call.attributes.error(&format!("{what}_tensor"), reason))?;
            call.importer.loader.tensor(proto)
        }
        None => Err(call.error(format!("its {what} are missing"))),
    }
}

/// `LabelEncoder`: every element found among the keys becomes the value beside its key.
pub fn encode_labels(call: &mut Call) -> Imported {
    if call.version < 2 {
        return Err(call.unsupported("it maps strings, which are an unsupported data type"));
    }
    let (keys, values) = (listed(call, "keys")?, listed(call, "values")?);
    if keys.shape().len() != 1 || keys.count() == 0 || values.shape() != keys.shape() {
        return Err(call.error(format!("{:?} keys do not go with {:?} values", keys.shape(), values.shape())));
    }
    let element = values.element();
    let otherwise = match call.attributes.tensor("default_tensor")? {
        Some(proto) => {
            let tensor = call.importer.loader.tensor(proto)?;
            if tensor.count() != 1 || tensor.element() != element {
                return Err(call.attributes.error("default_tensor", format!("this must be one {element}")));
            }
            Literal { element, bits: tensor.bits_at(0) }
        }
        None if element.is_float() => {
            Literal::from_f64(element, call.attributes.float_or("default_float", -0.)?.into())
        }
        None => Literal::from_integer(element, call.attributes.int_or("default_int64", -1)?.into()),
    };
    call.attributes.ignore(&["default_float", "default_int64", "default_string"]);
    let x = call.value(0)?;
    if call.element_of(x) != keys.element() {
        return Err(call.operand_error(0, format!("this must be {} like the keys", keys.element())));
    }
    // The table of results: the default, then the values. Of equal keys the last one counts.
    let mut table = Tensor::zeros(element, &[values.count() + 1]).map_err(|error| call.error(error.to_string()))?;
    table.set_bits(0, otherwise.bits);
    for position in 0..values.count() {
        table.set_bits(position + 1, values.bits_at(position));
    }
    let base = call.importer.origin.base.clone();
    let is_float = keys.element().is_float();
    let mut sizes = call.shape_of(x);
    let rank = sizes.len();
    sizes.push(Size::from(keys.count() as i64));
    let keys = call.importer.materialise(&Item::constant(format!("{base}_keys"), keys))?;
    let table = call.importer.materialise(&Item::constant(format!("{base}_values"), table))?;
    let (mut draft, variables) = Draft::over(&sizes);
    draft.read_at(x, &variables[..rank]);
    draft.read_at(keys, &variables[rank..]);
    let mut hit = equal(operand(0), operand(1));
    if is_float {
        let both = [0, 1].map(|slot| apply(Unary::IsNan, operand(slot)));
        let [left, right] = both;
        hit = ScalarExpr::binary(Binary::Or, hit, ScalarExpr::binary(Binary::And, left, right));
    }
    let row = add(ScalarExpr::Index(variables[rank]), ScalarExpr::Literal(Literal::i64(1)));
    let row = ScalarExpr::select(hit, row, ScalarExpr::Literal(Literal::i64(0)));
    let rows = call.emit(draft, Op::Map(row), ElementType::I64, &variables);
    let rows = reduced(call, rows, &[rank], Monoid::Maximum, false);
    let (mut draft, variables) = Draft::over(&sizes[..rank]);
    draft.read(table, vec![IndexExpr::atom(Atom::Read(1))]);
    draft.read_at(rows, &variables);
    Ok(vec![call.emit(draft, Op::Gather, element, &variables).into()])
}
