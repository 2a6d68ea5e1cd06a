//! A module while it is drafted: what values there are, and how arrays and nodes are added.

use super::{Config, Sample, data::Elements, tape::Tape};
use crate::{
    Axis, ElementType, Function, IndexMap, Module, Node, Op, Output, Parameter, Size, Source, Value, Variable,
};
use std::sync::Arc;
use strang_runtime::{Bindings, Tensor};

/// Sizes of axes: small ones, widths of vectors and one more, primes.
const SIZES: [i64; 20] = [2, 3, 4, 1, 5, 8, 7, 16, 17, 6, 9, 10, 11, 12, 13, 14, 15, 19, 23, 31];

pub(super) struct Draft<'a> {
    pub(super) config: &'a Config,
    pub(super) function: Function,
    parameters: Vec<Parameter>,
    pub(super) bodies: Vec<Function>,
    inputs: Vec<Tensor>,
    bindings: Bindings,
    random: Elements,
    /// Everything that a step may read, the newest last.
    pub(super) values: Vec<Value>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(config: &'a Config, seed: u64) -> Self {
        Draft {
            config,
            function: Function::new("main"),
            parameters: Vec::new(),
            bodies: Vec::new(),
            inputs: Vec::new(),
            bindings: Bindings::new(),
            random: Elements::new(seed),
            values: Vec::new(),
        }
    }

    /// One step, after a first input where there is none yet.
    pub(super) fn step(&mut self, numbers: &[u32]) {
        let mut tape = Tape::new(numbers);
        if self.values.is_empty() {
            let rank = tape.choose(&[2, 1, 3, 3, 4, 2]);
            let mut shape: Vec<Size> = (0..rank).map(|_| self.size(&mut tape)).collect();
            while self.count(&shape) > self.config.elements {
                shape.pop();
            }
            if self.config.symbolic && !tape.once_in(4) {
                let axis = tape.pick(shape.len());
                let value = self.number(&shape[axis]);
                self.bindings.insert("s".into(), value as i64);
                shape[axis] = Size::symbol("s");
            }
            let element = self.element(&mut tape);
            let input = self.input(element, &shape);
            self.values.push(input);
        }
        if let Some(value) = super::steps::step(self, &mut tape) {
            self.values.push(value);
        }
    }

    /// The module with all values that nothing reads as results.
    pub(super) fn finish(mut self) -> Sample {
        // Tapes may be empty; a module has a result.
        if self.values.is_empty() {
            self.step(&[]);
        }
        let function = &self.function;
        let mut results: Vec<Value> = Vec::new();
        for node in function.order() {
            for port in 0..function.graph[node].outputs.len() as u32 {
                let value = Value { node, port };
                let source = matches!(function.graph[node].op, Op::Input(_) | Op::Param(_));
                if function.readers(value).is_empty() && !source {
                    results.push(value);
                }
            }
        }
        if results.is_empty() {
            results.extend(self.values.last());
        }
        self.function.output_names = (0..results.len()).map(|position| format!("result{position}").into()).collect();
        self.function.outputs = results;
        let mut functions = vec![self.function];
        functions.extend(self.bodies);
        let module = Module { title: "random".into(), parameters: self.parameters, functions };
        Sample { module, inputs: self.inputs, bindings: self.bindings }
    }

    /// A constant size.
    pub(super) fn size(&mut self, tape: &mut Tape) -> Size {
        tape.choose(&SIZES).into()
    }

    /// An element type for floats, weighted to f32.
    pub(super) fn element(&mut self, tape: &mut Tape) -> ElementType {
        use ElementType::*;
        if self.config.all_elements { tape.choose(&[F32, F32, F32, F32, F32, F32, F32, F16, BF16, F64]) } else { F32 }
    }

    /// The value of a size.
    pub(super) fn number(&self, size: &Size) -> usize {
        size.eval(&self.bindings).ok().and_then(|value| usize::try_from(value).ok()).unwrap_or(0)
    }

    /// The number of elements of a shape.
    pub(super) fn count(&self, shape: &[Size]) -> usize {
        shape.iter().map(|size| self.number(size)).product()
    }

    pub(super) fn shape(&self, value: Value) -> Vec<Size> {
        self.function.shape_of(value)
    }

    pub(super) fn element_of(&self, value: Value) -> ElementType {
        self.function.element_of(value)
    }

    fn numbers(&self, shape: &[Size]) -> Vec<usize> {
        shape.iter().map(|size| self.number(size)).collect()
    }

    fn input(&mut self, element: ElementType, shape: &[Size]) -> Value {
        let tensor = self.random.tensor(element, &self.numbers(shape), self.config.special_values);
        self.input_of(tensor, shape)
    }

    fn input_of(&mut self, tensor: Tensor, shape: &[Size]) -> Value {
        let name = format!("x{}", self.inputs.len());
        let node = self.function.add_input(name, tensor.element(), &axes(shape));
        self.inputs.push(tensor);
        node.into()
    }

    /// A parameter, or an input where a size is symbolic or the tape says so.
    pub(super) fn source(&mut self, tape: &mut Tape, element: ElementType, shape: &[Size]) -> Value {
        let tensor = self.random.tensor(element, &self.numbers(shape), self.config.special_values);
        self.source_of(tape, tensor, shape)
    }

    /// An array of positions below `limit`.
    pub(super) fn indices(&mut self, tape: &mut Tape, shape: &[Size], limit: usize) -> Value {
        let element = tape.choose(&[ElementType::I64, ElementType::I32]);
        let tensor = self.random.indices(element, &self.numbers(shape), limit);
        self.source_of(tape, tensor, shape)
    }

    fn source_of(&mut self, tape: &mut Tape, tensor: Tensor, shape: &[Size]) -> Value {
        if tape.once_in(3) || shape.iter().any(|size| size.as_constant().is_none()) {
            return self.input_of(tensor, shape);
        }
        let name = format!("w{}", self.parameters.len());
        let parameter = Parameter::new(name, tensor.element(), axes(shape)).with_data(tensor);
        let node = self.function.add_param(self.parameters.len() as u32, &parameter);
        self.parameters.push(parameter);
        node.into()
    }

    /// Adds a node over variables of given sizes of which `kept` are the axes of the result; `None` when it would be too
    /// large.
    pub(super) fn add(
        &mut self,
        op: Op,
        sizes: &[Size],
        maps: Vec<IndexMap>,
        (element, kept): (ElementType, &[u32]),
        operands: &[Value],
    ) -> Option<Value> {
        let shape: Vec<Size> = kept.iter().map(|variable| sizes[*variable as usize].clone()).collect();
        if self.count(sizes) > self.config.work || self.count(&shape) > self.config.elements {
            return None;
        }
        let name: Arc<str> = format!("t{}", self.function.graph.node_count()).into();
        let node = Node {
            op,
            variables: variables(sizes).into(),
            maps: maps.into(),
            outputs: vec![Output { name, element, variables: kept.to_vec() }],
            source: Source::None,
            block: None,
        };
        Some(self.function.add(node, operands).into())
    }

    /// Adds another output to the node of a value.
    pub(super) fn add_output(&mut self, value: Value, element: ElementType, kept: &[u32]) -> Value {
        let node = &mut self.function.graph[value.node];
        let name: Arc<str> = format!("{}_{}", node.outputs[0].name, node.outputs.len()).into();
        node.outputs.push(Output { name, element, variables: kept.to_vec() });
        Value { node: value.node, port: node.outputs.len() as u32 - 1 }
    }
}

/// The names of variables by position.
const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

/// Variables of given sizes.
pub(super) fn variables(sizes: &[Size]) -> Vec<Variable> {
    axes(sizes).iter().map(Variable::over).collect()
}

/// Axes of given sizes.
pub(super) fn axes(sizes: &[Size]) -> Vec<Axis> {
    sizes.iter().enumerate().map(|(position, size)| Axis::new(NAMES[position % NAMES.len()], size.clone())).collect()
}
