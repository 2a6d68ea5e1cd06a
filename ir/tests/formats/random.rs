//! Random modules for round trips: every operation, atom, condition, literal and element type, whether or not the circuit
//! makes sense. They are read off a tape of numbers, so that proptest shrinks them by shortening the tape.

use std::sync::Arc;
use strang_ir::{
    Atom, Axis, Condition, Digest, ElementType, Function, FunctionId, IndexExpr, IndexMap, Literal, Module, Node, Op,
    Output, Parameter, ScalarExpr, Size, Source, Tensor, Value, Variable,
    op::{Monoid, Norm},
    scalar::{Binary, Unary},
};

/// Numbers that decide; past the end every choice is the first.
pub struct Tape<'a> {
    numbers: &'a [u32],
    position: usize,
}

const NAMES: [&str; 10] = ["a", "b", "s", "s'", "n", "3x", "", "größe", "x y", "min"];
const SYMBOLS: [&str; 6] = ["n", "s", "seq.len", "we ird", "min", "a_1"];
const TITLES: [&str; 4] = ["layer 0", "a \"quoted\" \\ title\n", "", "naïve\u{1}"];

impl<'a> Tape<'a> {
    pub fn new(numbers: &'a [u32]) -> Self {
        Tape { numbers, position: 0 }
    }

    fn next(&mut self) -> u32 {
        self.position += 1;
        self.numbers.get(self.position - 1).copied().unwrap_or(0)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound.max(1)
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    fn many<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }

    fn word(&mut self) -> i64 {
        match self.below(4) {
            0 => self.below(10) as i64,
            1 => -(self.below(10) as i64),
            2 => self.of(&[i64::MAX, i64::MIN, i64::MIN + 1, 1 << 40]),
            _ => (i64::from(self.next()) << 32) | i64::from(self.next()),
        }
    }

    fn size(&mut self, depth: usize) -> Size {
        if depth == 0 || self.flag() {
            return if self.flag() { Size::symbol(self.of(&SYMBOLS)) } else { self.word().into() };
        }
        let (a, b) = (self.size(depth - 1), self.size(depth - 1));
        match self.below(7) {
            0 | 1 => a + b,
            2 => a * b,
            3 => a.floor_div(&b),
            4 => a.remainder(&b),
            5 => a.smaller(&b),
            _ => a.larger(&b),
        }
    }

    fn element(&mut self) -> ElementType {
        if self.flag() { ElementType::F32 } else { self.of(&ElementType::ALL) }
    }

    fn bits(&mut self, element: ElementType) -> u64 {
        let random = u64::from(self.next()) << 32 | u64::from(self.next());
        match element {
            ElementType::Bool => random & 1,
            _ if element.bits() == 64 => random,
            _ => random & ((1 << element.bits()) - 1),
        }
    }

    pub fn literal(&mut self, element: ElementType) -> Literal {
        let special = [0., -0., 1., -1., 0.5, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e-45, 3.4e38];
        match self.below(4) {
            0 => Literal::from_f64(element, self.below(100) as f64 / 8.),
            1 => Literal::from_f64(element, self.of(&special)),
            _ => Literal { element, bits: self.bits(element) },
        }
    }

    fn index(&mut self, variables: usize, depth: usize) -> IndexExpr {
        let terms = self.many(2, |tape| {
            let atom = tape.atom(variables, depth);
            let coefficient = if tape.flag() { Size::ONE } else { tape.size(1) };
            (atom, coefficient)
        });
        let constant = if self.flag() { Size::ZERO } else { self.size(1) };
        IndexExpr::new(terms, constant)
    }

    fn atom(&mut self, variables: usize, depth: usize) -> Atom {
        if variables > 0 && (depth == 0 || self.flag()) {
            return Atom::Variable(self.below(variables) as u32);
        }
        if depth == 0 {
            return Atom::Read(self.below(3) as u32);
        }
        let inner = Box::new(self.index(variables, depth - 1));
        match self.below(5) {
            0 => Atom::FloorDiv(inner, self.size(1)),
            1 => Atom::Remainder(inner, self.size(1)),
            2 => Atom::Clamp(inner, self.size(1), self.size(1)),
            3 => Atom::Table(self.many(4, Self::word).into(), inner),
            _ => Atom::Read(self.below(3) as u32),
        }
    }

    fn map(&mut self, rank: usize, variables: usize, element: ElementType) -> IndexMap {
        let plain = self.flag() && variables > 0;
        let expression = |tape: &mut Self| match plain {
            true => IndexExpr::variable(tape.below(variables) as u32),
            false => tape.index(variables, 2),
        };
        let exprs = (0..rank).map(|_| expression(self)).collect();
        let conditions = if self.flag() { vec![] } else { self.many(2, |tape| tape.condition(variables)) };
        let fill = if self.flag() {
            None
        } else {
            let other = self.of(&[element, element, ElementType::F16, ElementType::I8]);
            Some(self.literal(other))
        };
        IndexMap { exprs, conditions, fill }
    }

    fn condition(&mut self, variables: usize) -> Condition {
        let expression = self.index(variables, 1);
        if self.flag() {
            Condition::Range { expression, low: self.size(1), high: self.size(1) }
        } else {
            Condition::Divisible { expression, divisor: self.size(1) }
        }
    }

    fn scalar(&mut self, wanted: ElementType, operands: &[ElementType], variables: usize, depth: usize) -> ScalarExpr {
        let fitting: Vec<u32> = (0..operands.len() as u32).filter(|slot| operands[*slot as usize] == wanted).collect();
        if depth == 0 || self.below(4) == 0 {
            return match self.below(4) {
                0 | 1 if !fitting.is_empty() => ScalarExpr::Operand(self.of(&fitting)),
                2 if wanted == ElementType::I64 && variables > 0 => ScalarExpr::Index(self.below(variables) as u32),
                3 if wanted == ElementType::I64 => ScalarExpr::Size(self.size(1)),
                _ => ScalarExpr::Literal(self.literal(wanted)),
            };
        }
        let inner = |tape: &mut Self, wanted| tape.scalar(wanted, operands, variables, depth - 1);
        match self.below(4) {
            0 => {
                let function = self.of(Unary::ALL);
                let argument = if function.is_predicate() { ElementType::F32 } else { wanted };
                if function.is_predicate() != (wanted == ElementType::Bool) && function != Unary::Not
                    || !function.accepts(argument)
                {
                    return inner(self, wanted);
                }
                ScalarExpr::unary(function, inner(self, argument))
            }
            1 => {
                let function = self.of(Binary::ALL);
                let argument = if function.is_comparison() { self.element() } else { wanted };
                let arguments = [inner(self, argument), inner(self, argument)];
                let [left, right] = arguments;
                let made = ScalarExpr::binary(function, left.clone(), right);
                if made.element(operands) == Ok(wanted) { made } else { left.cast_if_needed(wanted, operands) }
            }
            2 => ScalarExpr::select(inner(self, ElementType::Bool), inner(self, wanted), inner(self, wanted)),
            _ => {
                let from = self.element();
                ScalarExpr::cast(wanted, inner(self, from))
            }
        }
    }

    fn axis(&mut self) -> Axis {
        let name = self.of(&NAMES);
        match self.below(3) {
            0 => Axis::new(name, 1 + self.below(5) as i64),
            1 => Axis::symbolic(name),
            _ => Axis::new(name, self.size(2)),
        }
    }

    fn parameter(&mut self, axes: &[Axis], position: usize) -> Parameter {
        let name = format!("{}{position}", self.of(&["w", "onnx::MatMul_", "a b", "layer.0.weight", "\""]));
        let element = self.of(&ElementType::ALL);
        match self.below(4) {
            0 => {
                let axes = self.many(3, |tape| tape.of(axes));
                Parameter::new(name, element, axes)
            }
            1 => {
                let mut parameter = Parameter::new(name, element, self.many(3, |tape| tape.of(axes)));
                parameter.digest = Some(Digest::of(&Tensor::scalar(self.next())));
                parameter
            }
            _ => {
                let shape = self.many(3, |tape| tape.below(4));
                let mut data = Tensor::zeros(element, &shape).unwrap();
                for at in 0..data.count() {
                    let bits = self.bits(element);
                    data.set_bits(at, bits);
                }
                let axes = shape.iter().map(|size| Axis::new(self.of(&NAMES), *size as i64)).collect();
                Parameter::new(name, element, axes).with_data(data)
            }
        }
    }

    pub fn module(&mut self) -> Module {
        let axes: Vec<Axis> = (0..1 + self.below(5)).map(|_| self.axis()).collect();
        let mut module = Module { title: self.of(&TITLES).into(), ..Module::default() };
        for position in 0..self.below(4) {
            let parameter = self.parameter(&axes, position);
            module.add_parameter(parameter);
        }
        let count = 1 + self.below(3);
        module.functions = (0..count).map(|_| self.function(&module, &axes, count)).collect();
        module
    }

    fn function(&mut self, module: &Module, axes: &[Axis], functions: usize) -> Function {
        let mut function = Function::new(self.of(&["main", "body", "a b"]));
        let mut values: Vec<Value> = Vec::new();
        for _ in 0..self.below(12) {
            let node = match self.below(4) {
                0 => {
                    let axes = self.many(3, |tape| tape.of(axes));
                    let (name, element) = (self.of(&NAMES), self.element());
                    function.add_input(name, element, &axes)
                }
                1 if !module.parameters.is_empty() => {
                    let position = self.below(module.parameters.len());
                    function.add_param(position as u32, &module.parameters[position])
                }
                _ => {
                    let (node, operands) = self.node(&function, &values, axes, functions);
                    function.add(node, &operands)
                }
            };
            let ports = function.graph[node].outputs.len() as u32;
            values.extend((0..ports).map(|port| Value { node, port }));
        }
        if !values.is_empty() {
            function.outputs = self.many(3, |tape| tape.of(&values));
        }
        function.output_names = (0..function.outputs.len()).map(|_| self.of(&NAMES).into()).collect();
        if !function.inputs.is_empty() && !function.outputs.is_empty() {
            let (inputs, outputs) = (function.inputs.len(), function.outputs.len());
            function.states = self.many(2, |tape| (tape.below(inputs) as u32, tape.below(outputs) as u32));
        }
        function
    }

    fn node(&mut self, function: &Function, values: &[Value], axes: &[Axis], functions: usize) -> (Node, Vec<Value>) {
        let most = if values.is_empty() { 0 } else { 4 };
        let mut operands = self.many(most, |tape| tape.of(values));
        let variables: Vec<Variable> = (0..self.below(5))
            .map(|_| {
                let axis = self.of(axes);
                Variable::named(self.of(&["i", "j'", "s"]), &axis)
            })
            .collect();
        let count = variables.len();
        let body = FunctionId(self.below(functions) as u32);
        let mut results: Vec<Vec<u32>> = (0..1 + self.below(2)).map(|_| self.some(count)).collect();
        let elements =
            |operands: &[Value]| operands.iter().map(|value| function.element_of(*value)).collect::<Vec<_>>();
        let along = self.below(count) as u32;
        let mut output = None;
        let op = match self.below(16) {
            0 => Op::Const(self.any_literal()),
            1 if !operands.is_empty() => Op::Dot { accumulator: self.element() },
            2 => Op::Reduce(self.of(&Monoid::ALL)),
            3 => Op::ArgReduce { largest: self.flag(), last: self.flag() },
            4 | 5 => {
                let over: Vec<u32> = results[0].clone().into_iter().filter(|_| self.flag()).collect();
                let mut over = if over.is_empty() { results[0].clone() } else { over };
                over.sort_unstable();
                let kind = self.of(&[Norm::Layer, Norm::Rms, Norm::Batch]);
                match over.is_empty() {
                    true => Op::View,
                    false if self.flag() => Op::Softmax { over, log: self.flag() },
                    false => {
                        let over = if kind == Norm::Batch { vec![] } else { over };
                        Op::Norm { kind, over, epsilon: Literal::from_f64(ElementType::F64, 1e-5) }
                    }
                }
            }
            6 => Op::View,
            7 if count > 0 && !operands.is_empty() => {
                Op::Concat { along, offsets: (0..operands.len() + 1).map(|_| self.size(1)).collect() }
            }
            8 => {
                // Nothing is contracted: braces in the first operand name what is read from the index operands.
                let missing: Vec<u32> = (0..count as u32).filter(|variable| !results[0].contains(variable)).collect();
                results.truncate(1);
                results[0].extend(missing);
                Op::Gather
            }
            9 => Op::Scatter {
                reduction: if self.flag() { None } else { Some(self.of(&Monoid::ALL)) },
                target: self.many(3, |tape| tape.index(count, 1)),
            },
            10 if count > 0 => {
                Op::Scan { body, along, reverse: self.flag(), states: self.below(operands.len() + 1) as u32 }
            }
            11 if count > 1 => {
                let kept = if along == 0 { 1 } else { 0 };
                results.truncate(1);
                results[0] = (0..count as u32).filter(|variable| *variable != along).collect();
                results.push(results[0].clone());
                Op::Sort { along, kept, descending: self.flag() }
            }
            12 => Op::If { then: body, otherwise: FunctionId(self.below(functions) as u32) },
            13 => {
                if self.flag() {
                    Op::Loop { body }
                } else {
                    Op::Call(body)
                }
            }
            14 => {
                let pair = |tape: &mut Self| (tape.of(&NAMES).to_owned(), tape.of(&TITLES).to_owned());
                Op::Custom { name: self.of(&TITLES).into(), attributes: self.many(3, pair).into_iter().collect() }
            }
            _ => {
                let wanted = if self.flag() { ElementType::I64 } else { self.element() };
                results.truncate(1);
                output = Some(wanted);
                Op::Map(self.scalar(wanted, &elements(&operands), count, 3))
            }
        };
        if let Op::Const(literal) = op {
            operands.clear();
            results = vec![vec![]];
            output = Some(literal.element);
        }
        let is_const = matches!(op, Op::Const(_));
        let maps = operands
            .iter()
            .map(|value| {
                let (rank, element) = (function.shape_of(*value).len(), function.element_of(*value));
                self.map(rank, count, element)
            })
            .collect();
        let outputs = results
            .into_iter()
            .map(|variables| Output {
                name: self.of(&NAMES).into(),
                element: output.unwrap_or_else(|| self.element()),
                variables,
            })
            .collect();
        let block: Option<Arc<str>> = if self.flag() { None } else { Some(self.of(&TITLES).into()) };
        let variables = if is_const { vec![] } else { variables };
        (Node { op, variables: variables.into(), maps, outputs, source: Source::None, block }, operands)
    }

    fn any_literal(&mut self) -> Literal {
        let element = self.of(&ElementType::ALL);
        self.literal(element)
    }

    /// Some of the numbers below `count`, in some order.
    fn some(&mut self, count: usize) -> Vec<u32> {
        let mut left: Vec<u32> = (0..count as u32).collect();
        let mut chosen = Vec::new();
        for _ in 0..self.below(count + 1) {
            chosen.push(left.remove(self.below(left.len())));
        }
        chosen
    }
}

trait CastIfNeeded {
    fn cast_if_needed(self, wanted: ElementType, operands: &[ElementType]) -> Self;
}

impl CastIfNeeded for ScalarExpr {
    fn cast_if_needed(self, wanted: ElementType, operands: &[ElementType]) -> Self {
        if self.element(operands) == Ok(wanted) { self } else { ScalarExpr::cast(wanted, self) }
    }
}
