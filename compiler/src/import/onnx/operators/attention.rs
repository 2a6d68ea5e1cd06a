//! Attention and what goes with it: `Attention` as two contractions around a softmax, `RotaryEmbedding`, and caches.

use super::{
    Operator,
    reduce::{reduced, softmax_over},
    scalar::{add, apply, attribute, cast, div, equal, less, mul, number, operand, size, sub},
    shape::concatenated,
};
use crate::import::onnx::{
    call::{Call, Imported},
    data::element_type,
    draft::Draft,
    error::ImportError,
    values::Item,
};
use strang_ir::{
    Atom, IndexExpr, IndexMap, Literal, Op, ScalarExpr, Value,
    op::Monoid,
    scalar::{Binary, Unary},
};
use strang_runtime::{ElementType, Size};

/// Heads as an axis: [batch, heads, positions, size of a head], from that or from [batch, positions, heads * size].
fn by_head(call: &mut Call, value: Value, heads: &str) -> Result<Value, ImportError> {
    let sizes = call.shape_of(value);
    if sizes.len() == 4 {
        return Ok(value);
    }
    let count = call.attributes.int(heads)?.filter(|count| *count > 0);
    let (Some(count), 3) = (count, sizes.len()) else {
        let reason = "this must be given and positive when the input has 3 axes";
        return Err(call.attributes.error(heads, reason));
    };
    let count = Size::from(count);
    let width = sizes[2].floor_div(&count);
    let split = [sizes[0].clone(), count, sizes[1].clone(), width.clone()];
    Ok(call.view(value, &split, |v, _| {
        let feature = IndexExpr::variable(v[1]).times(&width).plus(&IndexExpr::variable(v[3]));
        vec![IndexExpr::variable(v[0]), IndexExpr::variable(v[2]), feature]
    }))
}

/// The opposite of [`by_head`]: [batch, positions, heads * size].
fn joined(call: &mut Call, value: Value) -> Value {
    let sizes = call.shape_of(value);
    let turned = super::shape::transposed(call, value, &[0, 2, 1, 3]);
    call.reshape(turned, &[sizes[0].clone(), sizes[2].clone(), &sizes[1] * &sizes[3]])
}

/// Products of queries and keys, scaled. Heads of queries share those of keys in groups. The scale of half-precision
/// numbers is split between both sides, which keeps the products in range.
fn scores(call: &mut Call, q: Value, k: Value, element: ElementType) -> Result<Value, ImportError> {
    let (queries, keys) = (call.shape_of(q), call.shape_of(k));
    let given = call.attributes.float("scale")?;
    let half = element.is_float() && element.bits() < 32;
    let scale = match (given, queries[3].as_constant()) {
        (Some(scale), _) => attribute(element, if half { scale.sqrt() } else { scale }),
        (None, Some(width)) => number(element, (width as f64).powf(if half { -0.25 } else { -0.5 })),
        (None, None) => {
            let scale = apply(Unary::ReciprocalSquareRoot, size(element, &queries[3]));
            if half { apply(Unary::SquareRoot, scale) } else { scale }
        }
    };
    let (mut q, mut k) = (q, k);
    if half {
        q = call.map(&[q], mul(operand(0), scale.clone()))?;
        k = call.map(&[k], mul(operand(0), scale.clone()))?;
    }
    let group = queries[1].floor_div(&keys[1]);
    let sizes = [queries[0].clone(), queries[1].clone(), queries[2].clone(), keys[2].clone()];
    let (mut draft, output) = Draft::over(&sizes);
    let inner = draft.variable(&queries[3]);
    draft.read_at(q, &[output[0], output[1], output[2], inner]);
    let shared = IndexExpr::variable(output[1]).floor_div(&group, &draft.sizes());
    let (batch, key) = (IndexExpr::variable(output[0]), IndexExpr::variable(output[3]));
    draft.read(k, vec![batch, shared, key, IndexExpr::variable(inner)]);
    let products = call.emit(draft, Op::Dot { accumulator: element.accumulator() }, element, &output);
    if half { Ok(products) } else { call.map(&[products], mul(operand(0), scale)) }
}

/// Averages of values by weights.
fn averaged(call: &mut Call, weights: Value, v: Value, element: ElementType) -> Value {
    let (shape, values) = (call.shape_of(weights), call.shape_of(v));
    let group = shape[1].floor_div(&values[1]);
    let result = [shape[0].clone(), shape[1].clone(), shape[2].clone(), values[3].clone()];
    let (mut draft, output) = Draft::over(&result);
    let position = draft.variable(&values[2]);
    draft.read_at(weights, &[output[0], output[1], output[2], position]);
    let shared = IndexExpr::variable(output[1]).floor_div(&group, &draft.sizes());
    let (batch, feature) = (IndexExpr::variable(output[0]), IndexExpr::variable(output[3]));
    draft.read(v, vec![batch, shared, IndexExpr::variable(position), feature]);
    call.emit(draft, Op::Dot { accumulator: element.accumulator() }, element, &output)
}

/// The operators of the domain `ai.onnx.preview`.
pub const PREVIEW_OPERATORS: &[Operator] = &[Operator { name: "FlexAttention", versions: &[1], import: flexible }];

/// `FlexAttention`: attention whose scores and weights go through bodies that the model gives.
pub fn flexible(call: &mut Call) -> Imported {
    let (q, k, v) = (call.value(0)?, call.value(1)?, call.value(2)?);
    let (queries, keys, values) = (call.shape_of(q), call.shape_of(k), call.shape_of(v));
    if [&queries, &keys, &values].iter().any(|shape| shape.len() != 4) {
        return Err(call.error(format!("queries, keys and values have 4 axes, not {queries:?}, {keys:?}, {values:?}")));
    }
    if queries[1].as_constant().is_some() && !queries[1].remainder(&keys[1]).is(0) {
        return Err(call.error(format!("{} heads do not divide into groups for {} of keys", queries[1], keys[1])));
    }
    let element = call.element_of(q);
    let precision = match call.attributes.int("softmax_precision")? {
        None | Some(0) if element == ElementType::F64 => element,
        None | Some(0) => ElementType::F32,
        Some(kind) => element_type(kind as i32).map_err(|reason| call.attributes.error("softmax_precision", reason))?,
    };
    if !precision.is_float() {
        return Err(call.attributes.error("softmax_precision", format!("{precision} is no type of floats")));
    }
    let q = super::signal::in_float(call, q, precision)?;
    let k = super::signal::in_float(call, k, precision)?;
    let mut weights = scores(call, q, k, precision)?;
    weights = modified(call, "score_mod", weights)?;
    weights = softmax_over(call, weights, vec![3], false)?;
    weights = modified(call, "prob_mod", weights)?;
    let weights = super::signal::in_float(call, weights, element)?;
    Ok(vec![averaged(call, weights, v, element).into()])
}

/// A value after the body that an attribute holds, if the model gives it.
fn modified(call: &mut Call, name: &str, value: Value) -> Result<Value, ImportError> {
    if !call.attributes.has(name) {
        return Ok(value);
    }
    let graph = call.attributes.graph(name)?;
    let [input] = graph.input.as_slice() else {
        return Err(call.attributes.error(name, "the body has one input"));
    };
    call.importer.open_scope(graph)?;
    call.importer.define(&input.name, value.into())?;
    let items = call.importer.walk_body(graph)?;
    call.importer.close_scope();
    let [item] = items.as_slice() else {
        return Err(call.attributes.error(name, "the body has one output"));
    };
    let result = call.importer.materialise(item)?;
    if call.shape_of(result) != call.shape_of(value) || call.element_of(result) != call.element_of(value) {
        return Err(call.attributes.error(name, "the body must keep shape and type"));
    }
    Ok(result)
}

/// `Attention` (Vaswani et al., 2017), with groups of heads that share keys, caches, masks and soft caps.
pub fn attention(call: &mut Call) -> Imported {
    let x = call.value(0)?;
    let flat = call.shape_of(x).len() == 3;
    let element = call.element_of(x);
    let q = by_head(call, x, "q_num_heads")?;
    let (k, v) = (call.value(1)?, call.value(2)?);
    let (mut k, mut v) = (by_head(call, k, "kv_num_heads")?, by_head(call, v, "kv_num_heads")?);
    call.attributes.ignore(&["q_num_heads", "kv_num_heads"]);
    let past = call.optional(4)?.map(|past| call.shape_of(past)[2].clone());
    if let (Some(past_k), Some(past_v)) = (call.optional(4)?, call.optional(5)?) {
        k = concatenated(call, &[past_k, k], 2)?;
        v = concatenated(call, &[past_v, v], 2)?;
    }
    let (queries, keys, values) = (call.shape_of(q), call.shape_of(k), call.shape_of(v));
    if queries.len() != 4 || keys.len() != 4 || values.len() != 4 {
        return Err(call.error(format!("queries, keys and values do not fit: {queries:?}, {keys:?}, {values:?}")));
    }
    if queries[1].as_constant().is_some() && !queries[1].remainder(&keys[1]).is(0) {
        return Err(call.error(format!("{} heads do not divide into groups for {} of keys", queries[1], keys[1])));
    }
    let mut scaled = scores(call, q, k, element)?;
    // Half-precision numbers are rounded between the steps, as the operator's definition does.
    let wide = element;
    let raw = scaled;
    let cap = call.attributes.float_or("softcap", 0.)?;
    if cap > 0. {
        let cap = attribute(wide, cap);
        scaled = call.map(&[scaled], mul(cap.clone(), apply(Unary::Tanh, div(operand(0), cap))))?;
    }
    let capped = scaled;
    let (masked, may_be_empty) = masked(call, scaled, past.as_ref())?;
    let precision = match call.attributes.int("softmax_precision")? {
        None | Some(0) => wide,
        Some(kind) => element_type(kind as i32).map_err(|reason| call.attributes.error("softmax_precision", reason))?,
    };
    let exact = if precision.is_float() { precision } else { wide };
    let input = if exact == wide { masked } else { call.map(&[masked], cast(exact, wide, operand(0)))? };
    let mut weights = softmax_over(call, input, vec![3], false)?;
    if may_be_empty {
        // A query that may attend to nothing gives zeros.
        let best = reduced(call, input, &[3], Monoid::Maximum, true);
        let nothing = equal(operand(1), ScalarExpr::Literal(Literal::lowest(exact)));
        weights = call.map(&[weights, best], ScalarExpr::select(nothing, number(exact, 0.), operand(0)))?;
    }
    if exact != element {
        weights = call.map(&[weights], cast(element, exact, operand(0)))?;
    }
    let mut y = averaged(call, weights, v, element);
    if flat {
        y = joined(call, y);
    }
    let mut items: Vec<Item> = vec![y.into(), k.into(), v.into()];
    let mode = call.attributes.int_or("qk_matmul_output_mode", 0)?;
    if call.wants(3) {
        let shown = match mode {
            0 => raw,
            1 => capped,
            2 => masked,
            3 => weights,
            other => return Err(call.attributes.error("qk_matmul_output_mode", format!("{other} is no mode"))),
        };
        let from = call.element_of(shown);
        let shown = if from == element { shown } else { call.map(&[shown], cast(element, from, operand(0)))? };
        items.push(shown.into());
    }
    Ok(items)
}

/// Scores with -inf where a query may not attend to a key, and whether a query may be left with nothing. `past` is the
/// number of keys of the cache.
fn masked(call: &mut Call, scores: Value, past: Option<&Size>) -> Result<(Value, bool), ImportError> {
    let int = ElementType::I64;
    let sizes = call.shape_of(scores);
    let element = call.element_of(scores);
    let causal = call.attributes.flag("is_causal", false)?;
    let window = |name| -> Result<Option<i64>, ImportError> { Ok(call.attributes.int(name)?.filter(|w| *w >= 0)) };
    let (left, right) = (window("left_window_size")?, window("right_window_size")?);
    let (mask, lengths) = (call.optional(3)?, call.optional(6)?);
    if !causal && left.is_none() && right.is_none() && mask.is_none() && lengths.is_none() {
        return Ok((scores, false));
    }
    let (mut draft, variables) = Draft::over(&sizes);
    draft.read_at(scores, &variables);
    let mut expression = operand(0);
    let never = ScalarExpr::Literal(Literal::lowest(element));
    let mut slots = 1;
    if let Some(mask) = mask {
        let shape = call.shape_of(mask);
        let mask_element = call.element_of(mask);
        if shape.len() > 4 {
            return Err(call.operand_error(3, format!("{shape:?} does not broadcast to {sizes:?}")));
        }
        let exprs = crate::import::onnx::call::broadcast_exprs(&shape, &sizes, &variables);
        let mut map = IndexMap::new(exprs);
        // A mask that is shorter than the keys forbids the rest.
        if shape.last() != sizes.last() && !shape.last().is_some_and(|size| size.is(1)) {
            map = map.with_fill(match mask_element {
                ElementType::Bool => Literal::bool(false),
                other => Literal::lowest(other),
            });
        }
        draft.read_map(mask, map);
        expression = match mask_element {
            ElementType::Bool => ScalarExpr::select(operand(slots), expression, never.clone()),
            other => add(expression, cast(element, other, operand(slots))),
        };
        slots += 1;
    }
    let (query, key) = (ScalarExpr::Index(variables[2]), ScalarExpr::Index(variables[3]));
    let mut valid = None;
    if let Some(lengths) = lengths {
        let exprs = vec![IndexExpr::variable(variables[0])];
        draft.read(lengths, exprs);
        valid = Some(cast(int, call.element_of(lengths), operand(slots)));
    }
    // The position of a query among the keys.
    let offset = match (past, &valid) {
        (Some(past), _) => size(int, past),
        (None, Some(valid)) => sub(valid.clone(), size(int, &sizes[2])),
        (None, None) => size(int, &Size::ZERO),
    };
    let position = add(query, offset);
    let mut conditions = Vec::new();
    if causal {
        conditions.push(ScalarExpr::binary(Binary::LessOrEqual, key.clone(), position.clone()));
    }
    if let Some(left) = left {
        let bound = ScalarExpr::Literal(Literal::i64(left));
        conditions.push(ScalarExpr::binary(Binary::LessOrEqual, sub(position.clone(), key.clone()), bound));
    }
    if let Some(right) = right {
        let bound = ScalarExpr::Literal(Literal::i64(right));
        conditions.push(ScalarExpr::binary(Binary::LessOrEqual, sub(key.clone(), position), bound));
    }
    let may_be_empty = slots > 1 || valid.is_some() || left.is_some() || right.is_some();
    if let Some(valid) = valid {
        conditions.push(less(key, valid));
    }
    for condition in conditions {
        expression = ScalarExpr::select(condition, expression, never.clone());
    }
    Ok((call.emit(draft, Op::Map(expression), element, &variables), may_be_empty))
}

/// `RotaryEmbedding` (Su et al., 2021): pairs of features turn by an angle of the position.
pub fn rotary(call: &mut Call) -> Imported {
    let x = call.value(0)?;
    let flat = call.shape_of(x).len() == 3;
    let x = by_head(call, x, "num_heads")?;
    call.attributes.ignore(&["num_heads"]);
    let interleaved = call.attributes.flag("interleaved", false)?;
    let sizes = call.shape_of(x);
    let turned = match call.attributes.int_or("rotary_embedding_dim", 0)? {
        0 => sizes[3].clone(),
        turned => Size::from(turned),
    };
    let half = turned.floor_div(&Size::from(2));
    if half.lower_bound(1).is_none_or(|half| half < 1) {
        return Err(call.error(format!("{turned} features do not make pairs")));
    }
    let mut tables = [call.value(1)?, call.value(2)?];
    if call.has(3) {
        let positions = call.value(3)?;
        for table in &mut tables {
            let (mut draft, variables) = Draft::over(&[sizes[0].clone(), sizes[2].clone(), half.clone()]);
            draft.read(*table, vec![IndexExpr::atom(Atom::Read(1)), IndexExpr::variable(variables[2])]);
            draft.read_at(positions, &variables[..2]);
            let element = call.element_of(*table);
            *table = call.emit(draft, Op::Gather, element, &variables);
        }
    }
    let element = call.element_of(x);
    let (mut draft, variables) = Draft::over(&sizes);
    let feature = IndexExpr::variable(variables[3]);
    let outer: Vec<IndexExpr> = variables[..3].iter().map(|variable| IndexExpr::variable(*variable)).collect();
    let two = Size::from(2);
    let (partner, angle) = if interleaved {
        let pair = feature.floor_div(&two, &draft.sizes());
        let odd = feature.remainder(&two, &draft.sizes());
        let partner = pair.times(&two).plus_size(&Size::ONE).plus(&odd.times(&Size::from(-1)));
        (partner, pair.remainder(&half, &draft.sizes()))
    } else {
        let partner = feature.plus_size(&half).remainder(&turned, &draft.sizes());
        (partner, feature.remainder(&half, &draft.sizes()))
    };
    draft.read_at(x, &variables);
    draft.read(x, [outer.as_slice(), &[partner]].concat());
    for table in tables {
        draft.read(table, vec![outer[0].clone(), outer[2].clone(), angle.clone()]);
    }
    let int = ElementType::I64;
    let index = ScalarExpr::Index(variables[3]);
    let first = match interleaved {
        true => equal(
            ScalarExpr::binary(Binary::Remainder, index.clone(), ScalarExpr::Literal(Literal::i64(2))),
            ScalarExpr::Literal(Literal::i64(0)),
        ),
        false => less(index.clone(), size(int, &half)),
    };
    let (along, across) = (mul(operand(0), operand(2)), mul(operand(1), operand(3)));
    let mut expression = ScalarExpr::select(first, sub(along.clone(), across.clone()), add(along, across));
    if turned != sizes[3] {
        expression = ScalarExpr::select(less(index, size(int, &turned)), expression, operand(0));
    }
    let y = call.emit(draft, Op::Map(expression), element, &variables);
    Ok(vec![if flat { joined(call, y) } else { y }.into()])
}

/// `TensorScatter`: an update of a cache along its axis of positions.
pub fn cache_update(call: &mut Call) -> Imported {
    let (cache, update) = (call.value(0)?, call.value(1)?);
    let (sizes, added) = (call.shape_of(cache), call.shape_of(update));
    let axis = call.axis(call.attributes.int_or("axis", -2)?, sizes.len())?;
    let circular = match call.attributes.string_or("mode", "linear")? {
        "linear" => false,
        "circular" => true,
        other => return Err(call.attributes.error("mode", format!("`{other}` is neither linear nor circular"))),
    };
    if axis == 0 || sizes.len() != added.len() {
        return Err(call.error(format!("an update {added:?} does not fit a cache {sizes:?} along axis {axis}")));
    }
    // Where each position of the update goes, a sample at a time.
    let places = [sizes[0].clone(), added[axis].clone()];
    let (mut draft, variables) = Draft::over(&places);
    let mut place = ScalarExpr::Index(variables[1]);
    if let Some(starts) = call.optional(2)? {
        draft.read_at(starts, &variables[..1]);
        place = add(cast(ElementType::I64, call.element_of(starts), operand(0)), place);
    }
    if circular {
        place = ScalarExpr::binary(Binary::Remainder, place, size(ElementType::I64, &sizes[axis]));
    }
    let places = call.emit(draft, Op::Map(place), ElementType::I64, &variables);
    let (mut draft, output) = Draft::over(&sizes);
    let from = draft.variables(&added);
    draft.read_at(cache, &output);
    draft.read_at(update, &from);
    draft.read_at(places, &[from[0], from[axis]]);
    let mut target: Vec<IndexExpr> = from.iter().map(|variable| IndexExpr::variable(*variable)).collect();
    target[axis] = IndexExpr::atom(Atom::Read(2));
    let element = call.element_of(cache);
    Ok(vec![call.emit(draft, Op::Scatter { reduction: None, target }, element, &output).into()])
}
