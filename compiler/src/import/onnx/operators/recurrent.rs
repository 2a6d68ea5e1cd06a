//! Recurrent layers: `LSTM`, `GRU` and `RNN` as scans whose body is one step.

use super::scalar::{add, apply, attribute, less, max, min, mul, number, operand, sub};
use crate::import::onnx::{
    call::{Call, Imported},
    draft::Draft,
    error::ImportError,
    values::Item,
};
use strang_ir::{IndexExpr, Literal, Op, ScalarExpr, Value, scalar::Unary};
use strang_runtime::{ElementType, Size};

/// Which recurrent layer.
#[derive(Clone, Copy, PartialEq)]
enum Cell {
    Lstm,
    Gru,
    Rnn,
}

/// What all directions share.
struct Layer {
    cell: Cell,
    element: ElementType,
    batch: Size,
    hidden: Size,
    activations: Vec<Activation>,
    clip: Option<f32>,
    input_forget: bool,
    reset_after: bool,
    /// Batch before time.
    batch_first: bool,
}

/// An activation function with its parameters.
#[derive(Clone)]
struct Activation {
    name: String,
    alpha: f32,
    beta: f32,
}

/// The operands of a step that do not change from step to step.
struct Weights {
    input: Item,
    recurrent: Item,
    bias: Item,
    lengths: Item,
    peephole: Item,
}

/// `LSTM`.
pub fn lstm(call: &mut Call) -> Imported {
    layer(call, Cell::Lstm)
}

/// `GRU`.
pub fn gru(call: &mut Call) -> Imported {
    layer(call, Cell::Gru)
}

/// `RNN`.
pub fn rnn(call: &mut Call) -> Imported {
    layer(call, Cell::Rnn)
}

fn layer(call: &mut Call, cell: Cell) -> Imported {
    if call.version < 7 {
        // Which outputs there are, the names of the outputs say as well.
        call.attributes.ignore(&["output_sequence"]);
    }
    let directions = match call.attributes.string_or("direction", "forward")? {
        "forward" => vec![false],
        "reverse" => vec![true],
        "bidirectional" => vec![false, true],
        other => return Err(call.attributes.error("direction", format!("`{other}` is not a direction"))),
    };
    let batch_first = call.attributes.int_or("layout", 0)? == 1;
    let x = call.value(0)?;
    let sizes = call.shape_of(x);
    let (weights, recurrent) = (call.shape(1)?, call.shape(2)?);
    if sizes.len() != 3 || weights.len() != 3 || recurrent.len() != 3 {
        return Err(call.error("the input and both weights need 3 axes"));
    }
    let hidden = recurrent[2].clone();
    let asked = call.attributes.int("hidden_size")?;
    let gates = match cell {
        Cell::Lstm => 4,
        Cell::Gru => 3,
        Cell::Rnn => 1,
    };
    let rows = &hidden * &Size::from(gates);
    if asked.is_some_and(|asked| hidden.as_constant().is_some_and(|hidden| hidden != asked))
        || [&weights[1], &recurrent[1]]
            .iter()
            .any(|size| size.as_constant().zip(rows.as_constant()).is_some_and(|(a, b)| a != b))
        || weights[0].as_constant().is_some_and(|count| count != directions.len() as i64)
    {
        return Err(call.error(format!(
            "the weights {weights:?} and {recurrent:?} are not those of {} directions with {gates} gates of {hidden}",
            directions.len()
        )));
    }
    let activations = activations(call, cell, directions.len())?;
    let layer = Layer {
        cell,
        element: call.element_of(x),
        batch: sizes[usize::from(!batch_first)].clone(),
        hidden,
        activations,
        clip: call.attributes.float("clip")?,
        input_forget: cell == Cell::Lstm && call.attributes.flag("input_forget", false)?,
        reset_after: cell == Cell::Gru && call.attributes.flag("linear_before_reset", false)?,
        batch_first,
    };
    let weights = Weights {
        input: call.item(1),
        recurrent: call.item(2),
        bias: call.item(3),
        lengths: call.item(4),
        peephole: if cell == Cell::Lstm { call.item(7) } else { Item::Absent },
    };
    let mut initial = vec![call.optional(5)?];
    if cell == Cell::Lstm {
        initial.push(call.optional(6)?);
    }
    let mut columns: Vec<Vec<Value>> = vec![Vec::new(); initial.len() + 1];
    for (direction, reverse) in directions.iter().enumerate() {
        let starts: Vec<Value> = initial.iter().map(|value| layer.start(call, *value, direction)).collect();
        let outputs = layer.direction(call, x, &weights, &starts, direction, *reverse)?;
        for (column, output) in columns.iter_mut().zip(outputs) {
            column.push(output);
        }
    }
    let Some(results) = columns.pop() else { return Ok(vec![]) };
    // [time, batch, hidden] gets the axis of directions; with the batch first it comes before the hidden axis.
    let mut items: Vec<Item> = vec![stacked(call, &results, if batch_first { 2 } else { 1 })?.into()];
    for states in columns {
        items.push(stacked(call, &states, usize::from(batch_first))?.into());
    }
    Ok(items)
}

/// Values one beside the other along a new axis.
fn stacked(call: &mut Call, values: &[Value], axis: usize) -> Result<Value, ImportError> {
    let mut sizes = call.shape_of(values[0]);
    sizes.insert(axis, Size::ONE);
    let parts: Vec<Value> = values.iter().map(|value| call.reshape(*value, &sizes)).collect();
    super::shape::concatenated(call, &parts, axis)
}

fn activations(call: &Call, cell: Cell, directions: usize) -> Result<Vec<Activation>, ImportError> {
    let defaults: &[&str] = match cell {
        Cell::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        Cell::Gru => &["Sigmoid", "Tanh"],
        Cell::Rnn => &["Tanh"],
    };
    let names = call.attributes.strings("activations")?.unwrap_or_else(|| defaults.repeat(directions));
    if names.len() != defaults.len() * directions {
        let reason = format!("{} functions are needed, not {}", defaults.len() * directions, names.len());
        return Err(call.attributes.error("activations", reason));
    }
    let mut alphas = call.attributes.floats("activation_alpha")?.unwrap_or_default().iter().copied();
    let mut betas = call.attributes.floats("activation_beta")?.unwrap_or_default().iter().copied();
    let mut activations = Vec::new();
    for name in names {
        let name = name.to_ascii_lowercase();
        let (alpha, beta) = match name.as_str() {
            "affine" => (Some(1.), Some(0.)),
            "leakyrelu" => (Some(0.01), None),
            "thresholdedrelu" | "elu" => (Some(1.), None),
            "scaledtanh" => (Some(1.), Some(1.)),
            "hardsigmoid" => (Some(0.2), Some(0.5)),
            "sigmoid" | "tanh" | "relu" | "softsign" | "softplus" => (None, None),
            other => return Err(call.attributes.error("activations", format!("`{other}` is not supported"))),
        };
        let alpha = alpha.map_or(0., |default| alphas.next().unwrap_or(default));
        let beta = beta.map_or(0., |default| betas.next().unwrap_or(default));
        activations.push(Activation { name, alpha, beta });
    }
    Ok(activations)
}

impl Activation {
    fn apply(&self, element: ElementType, x: ScalarExpr) -> ScalarExpr {
        let (alpha, beta) = (attribute(element, self.alpha), attribute(element, self.beta));
        let (zero, one) = (number(element, 0.), number(element, 1.));
        match self.name.as_str() {
            "sigmoid" => apply(Unary::Sigmoid, x),
            "tanh" => apply(Unary::Tanh, x),
            "relu" => apply(Unary::Relu, x),
            "softplus" => apply(Unary::Softplus, x),
            "softsign" => super::scalar::div(x.clone(), add(one, apply(Unary::Absolute, x))),
            "affine" => add(mul(alpha, x), beta),
            "leakyrelu" => ScalarExpr::select(less(x.clone(), zero), mul(alpha, x.clone()), x),
            "thresholdedrelu" => ScalarExpr::select(less(alpha, x.clone()), x, zero),
            "scaledtanh" => mul(alpha, apply(Unary::Tanh, mul(beta, x))),
            "hardsigmoid" => max(zero, min(one, add(mul(alpha, x), beta))),
            _ => ScalarExpr::select(less(x.clone(), zero), mul(alpha, apply(Unary::ExpMinusOne, x.clone())), x),
        }
    }
}

/// The operands of a scan while its body is built: those that are constants are parameters of the body itself.
struct Step {
    whole: Vec<Value>,
}

impl Step {
    /// An operand that every step gets whole, inside the body.
    fn input(
        &mut self,
        call: &mut Call,
        item: &Item,
        name: &str,
        outer: Option<Value>,
    ) -> Result<Option<Value>, ImportError> {
        match (item, outer) {
            (Item::Absent, _) => Ok(None),
            (Item::Value(_), Some(outer)) => {
                let builders = &call.importer.builders;
                let function = &builders[builders.len() - 2].function;
                let (element, sizes) = (function.element_of(outer), function.shape_of(outer));
                self.whole.push(outer);
                Ok(Some(call.importer.builder_mut().input(name, element, &sizes)))
            }
            (constant, _) => call.importer.materialise(constant).map(Some),
        }
    }
}

impl Layer {
    /// The initial state of a direction, [batch, hidden].
    fn start(&self, call: &mut Call, initial: Option<Value>, direction: usize) -> Value {
        let sizes = [self.batch.clone(), self.hidden.clone()];
        match initial {
            None => call.filled(Literal::zero(self.element), &sizes),
            Some(initial) => call.view(initial, &sizes, |v, _| {
                let (batch, hidden) = (IndexExpr::variable(v[0]), IndexExpr::variable(v[1]));
                let direction = IndexExpr::constant(direction as i64);
                if self.batch_first { vec![batch, direction, hidden] } else { vec![direction, batch, hidden] }
            }),
        }
    }

    /// The scan of one direction: the last states, then the results of all steps.
    fn direction(
        &self,
        call: &mut Call,
        x: Value,
        weights: &Weights,
        starts: &[Value],
        direction: usize,
        reverse: bool,
    ) -> Result<Vec<Value>, ImportError> {
        let sizes = call.shape_of(x);
        let (time, features) = (sizes[usize::from(self.batch_first)].clone(), sizes[2].clone());
        let times = (!weights.lengths.is_absent()).then(|| {
            let (draft, variables) = Draft::over(std::slice::from_ref(&time));
            call.emit(draft, Op::Map(ScalarExpr::Index(variables[0])), ElementType::I64, &variables)
        });
        let name = format!("{}_step", call.importer.origin.base);
        call.importer.open_made_body(&name);
        let state = [self.batch.clone(), self.hidden.clone()];
        let names = ["hidden", "cell"];
        let past: Vec<Value> = (0..starts.len())
            .map(|index| call.importer.builder_mut().input(names[index], self.element, &state))
            .collect();
        let features_sizes = [self.batch.clone(), features.clone()];
        let now = call.importer.builder_mut().input("x", self.element, &features_sizes);
        let position = times.map(|_| call.importer.builder_mut().input("t", ElementType::I64, &[]));
        let mut step = Step { whole: Vec::new() };
        let outer = |item: &Item| match item {
            Item::Value(value) => Some(*value),
            _ => None,
        };
        let mut given = Vec::new();
        let items = [&weights.input, &weights.recurrent, &weights.bias, &weights.lengths, &weights.peephole];
        for (item, name) in items.into_iter().zip(["w", "r", "bias", "lengths", "peephole"]) {
            given.push(step.input(call, item, name, outer(item))?);
        }
        let (Some(w), Some(r)) = (given[0], given[1]) else { return Err(call.error("the weights are missing")) };
        let inside = Inside { w, r, bias: given[2], peephole: given[4], direction: direction as i64 };
        let mut next = match self.cell {
            Cell::Lstm => self.lstm_step(call, now, &past, &inside)?,
            Cell::Gru => self.gru_step(call, now, &past, &inside)?,
            Cell::Rnn => self.rnn_step(call, now, &past, &inside)?,
        };
        let mut result = next[0];
        if let (Some(position), Some(lengths)) = (position, given[3]) {
            (next, result) = self.masked(call, &past, next, position, lengths)?;
        }
        next.push(result);
        let body = call.importer.close_made_body(&next);
        let (mut draft, variables) = Draft::over(&[time, self.batch.clone(), self.hidden.clone(), features]);
        let &[t, b, h, i] = variables.as_slice() else { unreachable!("four sizes give four variables") };
        for start in starts {
            draft.read_at(*start, &[b, h]);
        }
        draft.read_at(x, &if self.batch_first { [b, t, i] } else { [t, b, i] });
        if let Some(times) = times {
            draft.read_at(times, &[t]);
        }
        for value in step.whole {
            let variables = draft.variables(&call.shape_of(value));
            draft.read_at(value, &variables);
        }
        let op = Op::Scan { body, along: t, reverse, states: starts.len() as u32 };
        let mut outputs = vec![(self.element, vec![b, h]); starts.len()];
        outputs.push((self.element, if self.batch_first { vec![b, t, h] } else { vec![t, b, h] }));
        Ok(call.emit_many(draft, op, outputs))
    }

    /// States that stop changing, and results that are zero, behind the end of a sequence.
    fn masked(
        &self,
        call: &mut Call,
        past: &[Value],
        next: Vec<Value>,
        position: Value,
        lengths: Value,
    ) -> Result<(Vec<Value>, Value), ImportError> {
        let length_element = call.element_of(lengths);
        let running = less(operand(2), super::scalar::cast(ElementType::I64, length_element, operand(3)));
        let sizes = [self.batch.clone(), self.hidden.clone()];
        let mut choose = |new: Value, old: Value, otherwise: ScalarExpr| {
            let (mut draft, variables) = Draft::over(&sizes);
            draft.read_at(new, &variables);
            draft.read_at(old, &variables);
            draft.read(position, vec![]);
            draft.read_at(lengths, &variables[..1]);
            let op = Op::Map(ScalarExpr::select(running.clone(), operand(0), otherwise));
            call.emit(draft, op, self.element, &variables)
        };
        let result = choose(next[0], past[0], number(self.element, 0.));
        let states = next.iter().zip(past).map(|(new, old)| choose(*new, *old, operand(1))).collect();
        Ok((states, result))
    }

    /// `x W^T` or `h R^T` for some gates: [batch, gates, hidden], or [batch, hidden] of a single gate.
    fn gates(&self, call: &mut Call, x: Value, weights: Value, direction: i64, first: i64, count: i64) -> Value {
        let inner = call.shape_of(x)[1].clone();
        let sizes = match count {
            1 => vec![self.batch.clone(), self.hidden.clone()],
            _ => vec![self.batch.clone(), Size::from(count), self.hidden.clone()],
        };
        let (mut draft, output) = Draft::over(&sizes);
        let contracted = draft.variable(&inner);
        draft.read_at(x, &[output[0], contracted]);
        let row = self.row(&output[1..], first);
        draft.read(weights, vec![IndexExpr::constant(direction), row, IndexExpr::variable(contracted)]);
        call.emit(draft, Op::Dot { accumulator: self.element.accumulator() }, self.element, &output)
    }

    /// The row of the weights at variables [gate, hidden] or [hidden], from gate `first` on.
    fn row(&self, variables: &[u32], first: i64) -> IndexExpr {
        let start = &self.hidden * &Size::from(first);
        let row = match *variables {
            [gate, hidden] => IndexExpr::variable(gate).times(&self.hidden).plus(&IndexExpr::variable(hidden)),
            _ => IndexExpr::variable(variables[0]),
        };
        row.plus_size(&start)
    }

    /// The sum of parts over [batch, gates, hidden] with the biases of the gates: those of the input from gate
    /// `biases[..]` on, as many as are named.
    fn summed(&self, call: &mut Call, parts: &[Value], inside: &Inside, biases: &[i64]) -> Result<Value, ImportError> {
        let sizes = call.shape_of(parts[0]);
        let (mut draft, variables) = Draft::over(&sizes);
        for part in parts {
            draft.read_at(*part, &variables);
        }
        let mut count = parts.len() as u32;
        if let Some(bias) = inside.bias {
            for first in biases {
                let row = self.row(&variables[1..], *first);
                draft.read(bias, vec![IndexExpr::constant(inside.direction), row]);
                count += 1;
            }
        }
        let sum = (1..count).fold(operand(0), |sum, slot| add(sum, operand(slot)));
        Ok(call.emit(draft, Op::Map(sum), self.element, &variables))
    }

    /// A value limited to the clip range.
    fn clipped(&self, x: ScalarExpr) -> ScalarExpr {
        match self.clip {
            None => x,
            Some(limit) => {
                let limit = f64::from(limit);
                min(max(x, number(self.element, -limit)), number(self.element, limit))
            }
        }
    }

    fn activated(&self, direction: i64, function: usize, x: ScalarExpr) -> ScalarExpr {
        let each = match self.cell {
            Cell::Lstm => 3,
            Cell::Gru => 2,
            Cell::Rnn => 1,
        };
        self.activations[direction as usize * each + function].apply(self.element, self.clipped(x))
    }

    /// A map over [batch, hidden] of gates of `sums` and further values of that shape, and peepholes at gates.
    fn over_state(&self, call: &mut Call, reads: &[Read], inside: &Inside, expression: ScalarExpr) -> Value {
        let (mut draft, v) = Draft::over(&[self.batch.clone(), self.hidden.clone()]);
        let (b, h) = (IndexExpr::variable(v[0]), IndexExpr::variable(v[1]));
        for read in reads {
            match *read {
                Read::Gate(value, gate) => draft.read(value, vec![b.clone(), IndexExpr::constant(gate), h.clone()]),
                Read::State(value) => draft.read_at(value, &v),
                Read::Peephole(value, gate) => {
                    let place = h.plus_size(&(&self.hidden * &Size::from(gate)));
                    draft.read(value, vec![IndexExpr::constant(inside.direction), place]);
                }
            }
        }
        call.emit(draft, Op::Map(expression), self.element, &v)
    }

    /// Hochreiter and Schmidhuber, 1997, with forget gates and peepholes; gates in the order i, o, f, c.
    fn lstm_step(&self, call: &mut Call, x: Value, past: &[Value], inside: &Inside) -> Result<Vec<Value>, ImportError> {
        let direction = inside.direction;
        let parts =
            [self.gates(call, x, inside.w, direction, 0, 4), self.gates(call, past[0], inside.r, direction, 0, 4)];
        let sums = self.summed(call, &parts, inside, &[0, 4])?;
        let mut reads = vec![Read::Gate(sums, 0), Read::Gate(sums, 2), Read::Gate(sums, 3), Read::State(past[1])];
        let (mut i, mut f) = (operand(0), operand(1));
        if let Some(peephole) = inside.peephole {
            reads.extend([Read::Peephole(peephole, 0), Read::Peephole(peephole, 2)]);
            i = add(i, mul(operand(4), operand(3)));
            f = add(f, mul(operand(5), operand(3)));
        }
        let i = self.activated(direction, 0, i);
        let f = match self.input_forget {
            true => sub(number(self.element, 1.), i.clone()),
            false => self.activated(direction, 0, f),
        };
        let c = self.activated(direction, 1, operand(2));
        let cell = self.over_state(call, &reads, inside, add(mul(f, operand(3)), mul(i, c)));
        let mut reads = vec![Read::Gate(sums, 1), Read::State(cell)];
        let mut o = operand(0);
        if let Some(peephole) = inside.peephole {
            reads.push(Read::Peephole(peephole, 1));
            o = add(o, mul(operand(2), operand(1)));
        }
        let o = self.activated(direction, 0, o);
        let shown = self.activations[direction as usize * 3 + 2].apply(self.element, operand(1));
        let hidden = self.over_state(call, &reads, inside, mul(o, shown));
        Ok(vec![hidden, cell])
    }

    /// Cho et al., 2014; gates in the order z, r, h.
    fn gru_step(&self, call: &mut Call, x: Value, past: &[Value], inside: &Inside) -> Result<Vec<Value>, ImportError> {
        let direction = inside.direction;
        let parts =
            [self.gates(call, x, inside.w, direction, 0, 2), self.gates(call, past[0], inside.r, direction, 0, 2)];
        let sums = self.summed(call, &parts, inside, &[0, 3])?;
        let input = self.gates(call, x, inside.w, direction, 2, 1);
        let reset = self.activated(direction, 0, operand(0));
        let candidate = if self.reset_after {
            let input = self.summed(call, &[input], inside, &[2])?;
            let recurrent = self.gates(call, past[0], inside.r, direction, 2, 1);
            let recurrent = self.summed(call, &[recurrent], inside, &[5])?;
            let reads = [Read::Gate(sums, 1), Read::State(input), Read::State(recurrent)];
            self.over_state(call, &reads, inside, add(operand(1), mul(reset, operand(2))))
        } else {
            let reads = [Read::Gate(sums, 1), Read::State(past[0])];
            let kept = self.over_state(call, &reads, inside, mul(reset, operand(1)));
            let recurrent = self.gates(call, kept, inside.r, direction, 2, 1);
            self.summed(call, &[input, recurrent], inside, &[2, 5])?
        };
        let z = self.activated(direction, 0, operand(0));
        let h = self.activated(direction, 1, operand(1));
        let fresh = mul(sub(number(self.element, 1.), z.clone()), h);
        let reads = [Read::Gate(sums, 0), Read::State(candidate), Read::State(past[0])];
        Ok(vec![self.over_state(call, &reads, inside, add(fresh, mul(z, operand(2))))])
    }

    /// Elman, 1990.
    fn rnn_step(&self, call: &mut Call, x: Value, past: &[Value], inside: &Inside) -> Result<Vec<Value>, ImportError> {
        let direction = inside.direction;
        let parts =
            [self.gates(call, x, inside.w, direction, 0, 1), self.gates(call, past[0], inside.r, direction, 0, 1)];
        let sum = self.summed(call, &parts, inside, &[0, 1])?;
        let hidden = self.activated(direction, 0, operand(0));
        Ok(vec![self.over_state(call, &[Read::State(sum)], inside, hidden)])
    }
}

/// The constant operands inside a body.
struct Inside {
    w: Value,
    r: Value,
    bias: Option<Value>,
    peephole: Option<Value>,
    direction: i64,
}

/// How a map over [batch, hidden] reads an operand.
enum Read {
    /// One gate of [batch, gates, hidden].
    Gate(Value, i64),
    /// [batch, hidden].
    State(Value),
    /// The weights of a gate, an element of the state each.
    Peephole(Value, i64),
}
