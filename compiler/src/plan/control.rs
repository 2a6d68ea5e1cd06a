//! Steps that contain steps: scans, loops, choices, calls; and operations with kernels of their own (sort, custom).

use super::{
    PlanError,
    kernel::{Body, Kernel, PlanStep},
    layout::{Layout, counter},
    lower::{Planner, unsupported},
    scope::Scope,
    trace::distinct_variables,
};
use petgraph::stable_graph::NodeIndex;
use strang_ir::{ElementType, FunctionId, IndexExpr, Op, Size, Value};
use strang_runtime::program::{Address, Argument, Cost, Port};

impl Planner<'_> {
    /// Steps of an operation with functions of its own, or with a kernel of the runtime.
    ///
    /// # Errors
    /// Something that has no kernel.
    pub fn lower_control(
        &mut self,
        scope: &mut Scope,
        root: NodeIndex,
        steps: &mut Vec<PlanStep>,
    ) -> Result<(), PlanError> {
        match scope.op(root).clone() {
            Op::Scan { body, along, reverse, states } => {
                self.lower_scan(scope, root, body, along, reverse, states as usize, steps)
            }
            Op::Sort { along, descending, .. } => self.lower_sort(scope, root, along, descending, steps),
            Op::Call(function) => {
                let operands = self.whole_operands(scope, root, 0, steps)?;
                let results = self.whole_results(scope, root);
                let body = self.module.functions.get(function.0 as usize);
                let body = body.ok_or_else(|| unsupported(scope, root, "it calls a function that does not exist"))?;
                steps.extend(self.function(body, &operands, &results, scope.depth)?);
                Ok(())
            }
            Op::If { then, otherwise } => {
                let condition = self.whole_operands(scope, root, 0, steps)?;
                let results = self.whole_results(scope, root);
                let branch = |planner: &mut Self, id: FunctionId| {
                    let body = planner.module.functions.get(id.0 as usize);
                    let body =
                        body.ok_or_else(|| unsupported(scope, root, "it calls a function that does not exist"))?;
                    planner.function(body, &condition[1..], &results, scope.depth)
                };
                let (then, otherwise) = (branch(self, then)?, branch(self, otherwise)?);
                let condition = address(scope, root, &condition[0])?;
                steps.push(PlanStep::If { condition, then, otherwise });
                Ok(())
            }
            Op::Custom { name, .. } => {
                let node = scope.function.graph[root].clone();
                let layouts = self.whole_operands(scope, root, 0, steps)?;
                let results = self.whole_results(scope, root);
                let values = scope.function.operands(root);
                let port = |scope: &Scope, value: Value| Port {
                    name: scope.function.output_of(value).name.clone(),
                    element: scope.function.element_of(value),
                    shape: scope.function.shape_of(value),
                };
                let mut operands = Vec::new();
                for (layout, value) in layouts.iter().zip(values) {
                    operands.push((address(scope, root, layout)?, port(scope, value)));
                }
                let mut written = Vec::new();
                for (position, layout) in results.iter().enumerate() {
                    let value = Value { node: root, port: position as u32 };
                    written.push((address(scope, root, layout)?, port(scope, value)));
                }
                let label = super::error::layer_of(&node).into();
                steps.push(PlanStep::Host { name, operands, results: written, label });
                Ok(())
            }
            _ => {
                Err(unsupported(scope, root, "loops with a condition are not compiled yet; a scan of known length is"))
            }
        }
    }

    /// A repeat over the steps of the body. A state has two places that take turns, so an iteration reads the one and
    /// writes the other.
    #[expect(clippy::too_many_arguments, reason = "the fields of the operation")]
    fn lower_scan(
        &mut self,
        scope: &mut Scope,
        root: NodeIndex,
        body: FunctionId,
        along: u32,
        reverse: bool,
        states: usize,
        steps: &mut Vec<PlanStep>,
    ) -> Result<(), PlanError> {
        let node = scope.function.graph[root].clone();
        let count = node.size_of(along);
        let module = self.module;
        let function = module.functions.get(body.0 as usize);
        let function = function.ok_or_else(|| unsupported(scope, root, "its body does not exist"))?;
        if scope.depth as usize >= 4 {
            return Err(unsupported(scope, root, "scans are nested more than 4 deep"));
        }
        let iteration = counter(scope.depth);
        let position = if reverse {
            iteration.times(&Size::from(-1)).plus_size(&(&count - &Size::ONE))
        } else {
            iteration.clone()
        };
        let two = Size::from(2);
        let turn = |expr: &IndexExpr| expr.remainder(&two, &|_| Size::symbol("iterations"));
        let operands = self.whole_operands(scope, root, 0, steps)?;
        let (mut inputs, mut results) = (Vec::new(), Vec::new());
        let mut pairs: Vec<Layout> = Vec::new();
        for (slot, layout) in operands.iter().enumerate() {
            let read = node.maps[slot].as_variables().filter(|_| node.maps[slot].fill.is_none());
            let read = read.ok_or_else(|| unsupported(scope, root, "its operands are read through maps"))?;
            if slot < states {
                let value = scope.function.operands(root)[slot];
                let mut shape = vec![two.clone()];
                shape.extend(scope.function.shape_of(value));
                let order: Vec<usize> = (0..shape.len()).collect();
                let pair = self.array(layout.element, &shape, &order, &[]);
                self.copy_to(scope, value, &pair.slice(0, &IndexExpr::default()), steps)?;
                inputs.push(pair.slice(0, &turn(&iteration)));
                results.push(pair.slice(0, &turn(&iteration.plus_size(&Size::ONE))));
                pairs.push(pair);
                continue;
            }
            match read.iter().position(|variable| *variable == along) {
                Some(axis) => inputs.push(layout.slice(axis, &position)),
                None => inputs.push(layout.clone()),
            }
        }
        for port in states..node.outputs.len() {
            let value = Value { node: root, port: port as u32 };
            let order: Vec<usize> = (0..node.outputs[port].variables.len()).collect();
            let stacked = self.place(scope, value, &order);
            let axis = node.outputs[port].variables.iter().position(|variable| *variable == along);
            let axis = axis.ok_or_else(|| unsupported(scope, root, "a result is not stacked along its axis"))?;
            results.push(stacked.slice(axis, &position));
        }
        let body = self.function(function, &inputs, &results, scope.depth + 1)?;
        steps.push(PlanStep::Repeat { count: count.clone(), condition: None, body });
        let last = IndexExpr::constant(count.remainder(&two));
        for (port, pair) in pairs.iter().enumerate() {
            scope.arrays.insert(Value { node: root, port: port as u32 }, pair.slice(0, &last));
        }
        Ok(())
    }

    fn lower_sort(
        &mut self,
        scope: &mut Scope,
        root: NodeIndex,
        along: u32,
        descending: bool,
        steps: &mut Vec<PlanStep>,
    ) -> Result<(), PlanError> {
        let node = scope.function.graph[root].clone();
        let operands = self.whole_operands(scope, root, 0, steps)?;
        let results = self.whole_results(scope, root);
        let read = distinct_variables(&node.maps[0].exprs);
        let read = read.ok_or_else(|| unsupported(scope, root, "its operand is read through a map"))?;
        let axis = read.iter().position(|variable| *variable == along);
        let axis = axis.ok_or_else(|| unsupported(scope, root, "its operand does not have the sorted axis"))?;
        let output = &node.outputs[0].variables;
        if output.len() != read.len() || (0..read.len()).any(|other| other != axis && output[other] != read[other]) {
            return Err(unsupported(scope, root, "its result has other axes than its operand"));
        }
        let shape = scope.function.shape_of(scope.function.operands(root)[0]);
        let outer: Size = shape[..axis].iter().cloned().product();
        let inner: Size = shape[axis + 1..].iter().cloned().product();
        let element = node.outputs[0].element;
        let pointers = [&operands[0], &results[0], &results[1]].map(|layout| address(scope, root, layout));
        let [source, values, positions] = pointers;
        let (source, values, positions) = (source?, values?, positions?);
        let kept = node.shape(0)[axis].clone();
        let sizes = [shape[axis].clone(), inner.clone(), kept];
        let mut arguments: Vec<Argument> =
            [&source, &values, &positions].into_iter().map(|place| Argument::Address(place.clone())).collect();
        arguments.extend(sizes.into_iter().map(Argument::Size));
        arguments.push(Argument::Size(i64::from(descending).into()));
        arguments
            .push(Argument::Size((ElementType::ALL.iter().position(|e| *e == element).unwrap_or(0) as i64).into()));
        let scratch = &shape[axis] * &Size::from(16);
        let body = Body::Builtin { name: "sort".into(), arguments, grid: outer * inner, scratch };
        steps.push(PlanStep::Kernel(Box::new(Kernel {
            label: super::error::layer_of(&node).into(),
            variables: Vec::new(),
            pointers: vec![source, values, positions],
            accesses: Vec::new(),
            body,
            cost: Cost::default(),
        })));
        Ok(())
    }

    /// The operands of a node from a slot on, as dense arrays in logical order.
    fn whole_operands(
        &mut self,
        scope: &mut Scope,
        root: NodeIndex,
        first: usize,
        steps: &mut Vec<PlanStep>,
    ) -> Result<Vec<Layout>, PlanError> {
        let mut layouts = Vec::new();
        for value in scope.function.operands(root).into_iter().skip(first) {
            let shape = scope.function.shape_of(value);
            let order: Vec<usize> = (0..shape.len()).collect();
            let element = scope.function.element_of(value);
            let dense = Layout::dense(0, element, &shape, &order, &[]).0.strides;
            match scope.arrays.get(&value) {
                Some(layout) if layout.strides == dense => layouts.push(layout.clone()),
                _ => {
                    let layout = self.array(element, &shape, &order, &[]);
                    self.copy_to(scope, value, &layout, steps)?;
                    layouts.push(layout);
                }
            }
        }
        Ok(layouts)
    }

    /// New dense arrays for all results of a node.
    fn whole_results(&mut self, scope: &mut Scope, root: NodeIndex) -> Vec<Layout> {
        let node = scope.function.graph[root].clone();
        let mut layouts = Vec::new();
        for (port, output) in node.outputs.iter().enumerate() {
            let shape = node.shape(port as u32);
            let order: Vec<usize> = (0..shape.len()).collect();
            let layout = self.array(output.element, &shape, &order, &[]);
            scope.arrays.insert(Value { node: root, port: port as u32 }, layout.clone());
            layouts.push(layout);
        }
        layouts
    }
}

/// The address where a dense array starts.
fn address(scope: &Scope, root: NodeIndex, layout: &Layout) -> Result<Address, PlanError> {
    let offset = layout.offset.as_size();
    let offset = offset.ok_or_else(|| unsupported(scope, root, "it stands inside a scan, where its operands move"))?;
    let bits = Size::from(i64::from(layout.element.bits()));
    Ok(Address { buffer: layout.buffer, offset: (offset * &bits).floor_div(&Size::from(8)) })
}
