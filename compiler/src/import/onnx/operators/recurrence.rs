//! Layers of sequence models that carry a state without gates of their own: linear attention and causal convolution.

use super::{
    scalar::{add, apply, attribute, mul, operand, sub},
    shape::{concatenated, cut},
    signal::in_float,
};
use crate::import::onnx::{
    call::{Call, Imported},
    draft::Draft,
    error::ImportError,
    values::Item,
};
use strang_ir::{IndexExpr, IndexMap, Literal, Op, Value, scalar::Unary};
use strang_runtime::{ElementType, Size};

/// What changes the state of linear attention.
#[derive(Clone, Copy)]
struct Rule {
    /// The state decays before it is added to.
    gated: bool,
    /// What is added is the difference from what the state says already.
    delta: bool,
}

/// A packed operand [batch, positions, heads * width] as [batch, positions, heads, width].
fn unpacked(call: &mut Call, slot: usize, heads: &Size, wide: ElementType) -> Result<Value, ImportError> {
    let value = call.value(slot)?;
    let sizes = call.shape_of(value);
    let width = sizes.get(2).map(|size| size.floor_div(heads));
    let (Some(width), 3) = (width, sizes.len()) else {
        return Err(call.operand_error(slot, format!("this has the axes batch, positions, features, not {sizes:?}")));
    };
    if sizes[2].as_constant().is_some() && !sizes[2].remainder(heads).is(0) {
        return Err(call.operand_error(slot, format!("{} features do not divide into {heads} heads", sizes[2])));
    }
    let value = in_float(call, value, wide)?;
    Ok(call.reshape(value, &[sizes[0].clone(), sizes[1].clone(), heads.clone(), width]))
}

/// `LinearAttention`: a state [keys, values] for every head is read by queries and changed by keys and values, position
/// by position (Katharopoulos et al., 2020; Yang et al., 2024).
pub fn linear_attention(call: &mut Call) -> Imported {
    call.attributes.ignore(&["chunk_size"]);
    let rule = match call.attributes.string_or("update_rule", "gated_delta")? {
        "linear" => Rule { gated: false, delta: false },
        "gated" => Rule { gated: true, delta: false },
        "delta" => Rule { gated: false, delta: true },
        "gated_delta" => Rule { gated: true, delta: true },
        other => return Err(call.attributes.error("update_rule", format!("`{other}` is no rule"))),
    };
    let heads = |name| match call.attributes.required_int(name)? {
        heads if heads > 0 => Ok(heads),
        _ => Err(call.attributes.error(name, "this must be positive")),
    };
    let (query_heads, key_heads) = (heads("q_num_heads")?, heads("kv_num_heads")?);
    if query_heads % key_heads != 0 {
        return Err(call.error(format!("{query_heads} query heads do not share {key_heads} states evenly")));
    }
    let (query_heads, key_heads) = (Size::from(query_heads), Size::from(key_heads));
    let element = call.element(0)?;
    let wide = if element.bits() < 32 { ElementType::F32 } else { element };
    let q = unpacked(call, 0, &query_heads, wide)?;
    let k = unpacked(call, 1, &key_heads, wide)?;
    let v = unpacked(call, 2, &key_heads, wide)?;
    let (queries, keys, values) = (call.shape_of(q), call.shape_of(k), call.shape_of(v));
    let decay = if rule.gated { Some(unpacked(call, 4, &key_heads, wide)?) } else { None };
    let rate = if rule.delta { Some(rates(call, &key_heads, wide)?) } else { None };
    let scale = match call.attributes.float_or("scale", 0.)? {
        0. => match queries[3].as_constant() {
            Some(width) => super::scalar::number(wide, 1. / (width as f64).sqrt()),
            None => apply(Unary::ReciprocalSquareRoot, super::scalar::size(wide, &queries[3])),
        },
        scale => attribute(wide, scale),
    };
    let state_sizes = [keys[0].clone(), key_heads.clone(), keys[3].clone(), values[3].clone()];
    let (state, state_element) = match call.optional(3)? {
        Some(past) => (in_float(call, past, wide)?, call.element_of(past)),
        None => (call.filled(Literal::zero(wide), &state_sizes), element),
    };
    if call.shape_of(state).len() != 4 {
        return Err(call.operand_error(3, format!("the state must be {state_sizes:?}")));
    }
    // One position: the state, then what is read at the position.
    let name = format!("{}_step", call.importer.origin.base);
    call.importer.open_made_body(&name);
    let sequences: Vec<Value> = [q, k, v].into_iter().chain(decay).chain(rate).collect();
    let shapes: Vec<Vec<Size>> = [&queries, &keys, &values].map(Clone::clone).into();
    let mut shapes = shapes;
    for value in decay.iter().chain(&rate) {
        shapes.push(call.importer.builders[call.importer.builders.len() - 2].function.shape_of(*value));
    }
    let old = call.importer.builder_mut().input("state", wide, &state_sizes);
    let mut inputs = Vec::new();
    for (position, shape) in shapes.iter().enumerate() {
        let sizes: Vec<Size> = shape[..1].iter().chain(&shape[2..]).cloned().collect();
        inputs.push(call.importer.builder_mut().input(&format!("input_{position}"), wide, &sizes));
    }
    let (query, key, value) = (inputs[0], inputs[1], inputs[2]);
    let mut rest = inputs[3..].iter().copied();
    let kept = match decay.and_then(|_| rest.next()) {
        None => old,
        Some(gate) => {
            let sizes = call.shape_of(gate);
            let (mut draft, variables) = Draft::over(&state_sizes);
            draft.read_at(old, &variables);
            let feature = if sizes[2].is(1) { IndexExpr::constant(0) } else { IndexExpr::variable(variables[2]) };
            draft.read(gate, vec![IndexExpr::variable(variables[0]), IndexExpr::variable(variables[1]), feature]);
            let decayed = mul(operand(0), apply(Unary::Exp, operand(1)));
            call.emit(draft, Op::Map(decayed), wide, &variables)
        }
    };
    let added = match rate.and_then(|_| rest.next()) {
        None => value,
        Some(rate) => {
            let sizes = [keys[0].clone(), key_heads.clone(), values[3].clone()];
            let (mut draft, variables) = Draft::over(&sizes);
            let feature = draft.variable(&keys[3]);
            draft.read_at(kept, &[variables[0], variables[1], feature, variables[2]]);
            draft.read_at(key, &[variables[0], variables[1], feature]);
            let said = call.emit(draft, Op::Dot { accumulator: wide }, wide, &variables);
            let (mut draft, variables) = Draft::over(&sizes);
            draft.read_at(value, &variables);
            draft.read_at(said, &variables);
            draft.read_at(rate, &variables[..2]);
            let difference = mul(operand(2), sub(operand(0), operand(1)));
            call.emit(draft, Op::Map(difference), wide, &variables)
        }
    };
    let (mut draft, variables) = Draft::over(&state_sizes);
    draft.read_at(kept, &variables);
    draft.read_at(key, &variables[..3]);
    draft.read_at(added, &[variables[0], variables[1], variables[3]]);
    let new = add(operand(0), mul(operand(1), operand(2)));
    let new = call.emit(draft, Op::Map(new), wide, &variables);
    let result_sizes = [queries[0].clone(), query_heads.clone(), values[3].clone()];
    let (mut draft, variables) = Draft::over(&result_sizes);
    let feature = draft.variable(&keys[3]);
    draft.read_at(query, &[variables[0], variables[1], feature]);
    let group = query_heads.floor_div(&key_heads);
    let head = IndexExpr::variable(variables[1]).floor_div(&group, &draft.sizes());
    let (batch, column) = (IndexExpr::variable(variables[0]), IndexExpr::variable(variables[2]));
    draft.read(new, vec![batch, head, IndexExpr::variable(feature), column]);
    let read = call.emit(draft, Op::Dot { accumulator: wide }, wide, &variables);
    let result = call.map(&[read], mul(operand(0), scale))?;
    let body = call.importer.close_made_body(&[new, result]);
    let mut draft = Draft::default();
    let along = draft.variable(&queries[1]);
    let state_variables = draft.variables(&state_sizes);
    draft.read_at(state, &state_variables);
    for (value, shape) in sequences.iter().zip(&shapes) {
        let batch = draft.variable(&shape[0]);
        let others = draft.variables(&shape[2..]);
        draft.read_at(*value, &[&[batch, along], others.as_slice()].concat());
    }
    let output = draft.variables(&result_sizes);
    let stacked = vec![output[0], along, output[1], output[2]];
    let final_state = draft.variables(&state_sizes);
    let op = Op::Scan { body, along, reverse: false, states: 1 };
    let results = call.emit_many(draft, op, vec![(wide, final_state), (wide, stacked)]);
    let packed = [queries[0].clone(), queries[1].clone(), &query_heads * &values[3]];
    let y = call.reshape(results[1], &packed);
    Ok(vec![in_float(call, y, element)?.into(), in_float(call, results[0], state_element)?.into()])
}

/// The rates of a delta rule as [batch, positions, heads]: one number a head, or one for all.
fn rates(call: &mut Call, heads: &Size, wide: ElementType) -> Result<Value, ImportError> {
    let rates = call.value(5)?;
    let mut sizes = call.shape_of(rates);
    if sizes.len() != 3 {
        return Err(call.operand_error(5, format!("this has the axes batch, positions, heads, not {sizes:?}")));
    }
    let rates = in_float(call, rates, wide)?;
    let shared = sizes[2].is(1);
    sizes[2] = heads.clone();
    Ok(call.view(rates, &sizes, |v, _| {
        let head = if shared { IndexExpr::constant(0) } else { IndexExpr::variable(v[2]) };
        vec![IndexExpr::variable(v[0]), IndexExpr::variable(v[1]), head]
    }))
}

/// `CausalConvWithState`: a depthwise convolution that looks back only, over the input behind what is left of the past.
pub fn causal_convolution(call: &mut Call) -> Imported {
    let silu = match call.attributes.string_or("activation", "none")? {
        "none" => false,
        "silu" | "swish" => true,
        other => return Err(call.attributes.error("activation", format!("`{other}` is no activation"))),
    };
    let (x, weights) = (call.value(0)?, call.value(1)?);
    let (input, kernel) = (call.shape_of(x), call.shape_of(weights));
    if input.len() != 3 || kernel.len() != 3 || !kernel[1].is(1) {
        return Err(call.error(format!("an input {input:?} and weights {kernel:?} do not fit")));
    }
    let element = call.element_of(x);
    let before = &kernel[2] - &Size::ONE;
    let whole = match call.optional(3)? {
        Some(past) => concatenated(call, &[past, x], 2)?,
        None => {
            let sizes = [input[0].clone(), input[1].clone(), &input[2] + &before];
            let (mut draft, variables) = Draft::over(&sizes);
            let mut exprs: Vec<IndexExpr> = variables.iter().map(|variable| IndexExpr::variable(*variable)).collect();
            exprs[2] = exprs[2].plus_size(&-&before);
            draft.read_map(x, IndexMap::new(exprs).with_fill(Literal::zero(element)));
            call.emit(draft, Op::View, element, &variables)
        }
    };
    let (mut draft, variables) = Draft::over(&input);
    let tap = draft.variable(&kernel[2]);
    let place = IndexExpr::variable(variables[2]).plus(&IndexExpr::variable(tap));
    draft.read(whole, vec![IndexExpr::variable(variables[0]), IndexExpr::variable(variables[1]), place]);
    draft.read(weights, vec![IndexExpr::variable(variables[1]), IndexExpr::constant(0), IndexExpr::variable(tap)]);
    let sum = call.emit(draft, Op::Dot { accumulator: element.accumulator() }, element, &variables);
    let bias = call.optional(2)?;
    let mut y = super::convolution::with_bias(call, sum, bias)?;
    if silu {
        y = call.map(&[y], apply(Unary::Silu, operand(0)))?;
    }
    let mut items: Vec<Item> = vec![y.into()];
    if call.wants(1) {
        items.push(cut(call, whole, 2, &input[2], &before, 1).into());
    }
    Ok(items)
}
