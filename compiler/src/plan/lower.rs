//! Lowering of groups to kernels: where results lie, what is copied, and in which order steps run.

use super::{
    PlanError,
    build::{KernelBuilder, MustStore},
    error::layer_of,
    group::{Group, Groups, Kind, group},
    kernel::{Block, Body, Kernel, Nest, Plan, PlanStep},
    layout::{self, Halo, Layout},
    pack::Packed,
    padding::with_spare,
    residues::{self, Residues},
    scope::Scope,
    trace::{Trace, operand_trace, through_views},
    windows::Coordinate,
};
use petgraph::stable_graph::NodeIndex;
use rustc_hash::{FxHashMap, FxHashSet};
use strang_ir::{Atom, ElementType, Function, IndexExpr, Module, Op, Size, Tensor, Value};
use strang_runtime::program::{Base, Buffer, Zeroed};

/// The state of planning a module.
pub struct Planner<'a> {
    /// What is planned.
    pub module: &'a Module,
    /// The plan so far; its body is filled at the end.
    pub plan: Plan,
    /// Buffers of parameters that are read as they are, by position.
    parameters: FxHashMap<u32, u32>,
    /// Packed weights by what they were packed from, so that tied weights are packed once.
    pub packed: FxHashMap<String, Packed>,
    /// Where weights are computed that are packed right after.
    pub room: Tensor,
}

impl<'a> Planner<'a> {
    /// An empty plan for a module.
    pub fn new(module: &'a Module) -> Self {
        Planner {
            module,
            plan: Plan::default(),
            parameters: FxHashMap::default(),
            packed: FxHashMap::default(),
            room: Tensor::scalar(0u8),
        }
    }

    /// A new buffer.
    pub fn buffer(&mut self, base: Base, bytes: Size, zeroed: Vec<Zeroed>) -> u32 {
        self.plan.buffers.push(Buffer { base, bytes, live: (0, 0), zeroed });
        self.plan.buffers.len() as u32 - 1
    }

    /// A buffer with constant data.
    pub fn weights(&mut self, tensor: Tensor) -> u32 {
        let bytes = Size::from(tensor.length() as i64);
        self.plan.weights.push(tensor);
        self.buffer(Base::Weights(self.plan.weights.len() as u32 - 1), bytes, Vec::new())
    }

    /// A new array in the arena.
    pub fn array(&mut self, element: ElementType, shape: &[Size], order: &[usize], halos: &[Halo]) -> Layout {
        let zeroed = layout::border(element, shape, order, halos);
        let (mut layout, count) = Layout::dense(0, element, shape, order, halos);
        let bits = Size::from(i64::from(element.bits()));
        layout.buffer = self.buffer(Base::Arena, (count * bits).ceil_div(&Size::from(8)), zeroed);
        layout
    }

    /// The layout of a parameter as it lies in its file.
    ///
    /// # Errors
    /// A parameter without data.
    pub fn parameter(&mut self, position: u32) -> Result<Layout, PlanError> {
        let parameter = &self.module.parameters[position as usize];
        let buffer = match self.parameters.get(&position) {
            Some(buffer) => *buffer,
            None => {
                let data =
                    parameter.data.clone().ok_or_else(|| PlanError::MissingParameter(parameter.name.to_string()))?;
                let buffer = self.weights(data);
                self.parameters.insert(position, buffer);
                buffer
            }
        };
        let shape: Vec<Size> = parameter.axes.iter().map(|axis| axis.size.clone()).collect();
        let order: Vec<usize> = (0..shape.len()).collect();
        Ok(Layout::dense(buffer, parameter.element, &shape, &order, &[]).0)
    }

    /// Plans a function whose inputs lie at the given layouts and whose results must be written to others.
    ///
    /// # Errors
    /// Something that has no kernel.
    pub fn function(
        &mut self,
        function: &Function,
        inputs: &[Layout],
        results: &[Layout],
        depth: u32,
    ) -> Result<Vec<PlanStep>, PlanError> {
        let groups = group(function);
        let needed = needed_values(function, &groups);
        let mut scope = Scope {
            module: self.module,
            function,
            groups,
            arrays: FxHashMap::default(),
            halos: FxHashMap::default(),
            destinations: FxHashMap::default(),
            delivered: FxHashSet::default(),
            needed,
            copies: FxHashMap::default(),
            depth,
        };
        for (node, layout) in function.inputs.iter().zip(inputs) {
            scope.arrays.insert((*node).into(), layout.clone());
        }
        for (value, layout) in function.outputs.iter().zip(results) {
            scope.destinations.entry(*value).or_default().push(layout.clone());
        }
        let mut steps = Vec::new();
        for group in std::mem::take(&mut scope.groups.groups) {
            self.lower_group(&mut scope, &group, &mut steps)?;
        }
        for (value, layout) in function.outputs.iter().zip(results) {
            if scope.arrays.get(value) != Some(layout) && !scope.delivered.contains(value) {
                self.copy_to(&mut scope, *value, layout, &mut steps)?;
            }
        }
        Ok(steps)
    }

    fn lower_group(&mut self, scope: &mut Scope, group: &Group, steps: &mut Vec<PlanStep>) -> Result<(), PlanError> {
        // A read that needs an array names it; it is stored and the kernel is built again.
        for _ in 0..64 {
            let attempt = match &group.kind {
                Kind::Map => self.lower_map(scope, group),
                Kind::Fold => self.lower_fold(scope, group),
                Kind::Rows => self.lower_rows(scope, group),
                Kind::Contraction => self.lower_contraction(scope, group, steps)?,
                Kind::Attention { scores, softmax } => self.lower_attention(scope, group, *scores, *softmax, steps)?,
                Kind::Concat => return self.lower_concat(scope, group.root, steps),
                Kind::Scatter => self.lower_scatter(scope, group, steps)?,
                Kind::Control => return self.lower_control(scope, group.root, steps),
            };
            match attempt {
                Ok(kernel) => {
                    steps.push(PlanStep::Kernel(Box::new(kernel)));
                    return Ok(());
                }
                Err(MustStore(value)) => self.store_value(scope, value, steps)?,
            }
        }
        Err(unsupported(scope, group.root, "its operands cannot be stored in a finite number of steps"))
    }

    /// Makes an array of a value that reads went through until now.
    ///
    /// # Errors
    /// A value that nothing computes.
    pub fn store_value(&mut self, scope: &mut Scope, value: Value, steps: &mut Vec<PlanStep>) -> Result<(), PlanError> {
        if scope.arrays.contains_key(&value) {
            return Err(unsupported(scope, value.node, "it is read in a way that no kernel has"));
        }
        if let Some(position) = scope.parameter(value) {
            let layout = self.parameter(position)?;
            scope.arrays.insert(value, layout);
            return Ok(());
        }
        let shape = scope.function.shape_of(value);
        let order: Vec<usize> = (0..shape.len()).collect();
        let layout = self.array(scope.function.element_of(value), &shape, &order, &[]);
        self.copy_to(scope, value, &layout, steps)?;
        scope.arrays.insert(value, layout);
        Ok(())
    }

    /// Copies a value to a place, through its views.
    ///
    /// # Errors
    /// A value that is not computed.
    pub fn copy_to(
        &mut self,
        scope: &mut Scope,
        value: Value,
        layout: &Layout,
        steps: &mut Vec<PlanStep>,
    ) -> Result<(), PlanError> {
        let shape = scope.function.shape_of(value);
        for _ in 0..64 {
            let mut kernel = KernelBuilder::new(shape.iter().cloned());
            let position: Vec<IndexExpr> = (0..shape.len() as u32).map(IndexExpr::variable).collect();
            let mut block = Block::default();
            let trace = Trace { value, position: position.clone(), guard: None };
            match kernel.read(scope, &mut block, trace) {
                Ok(read) => {
                    let stores = vec![kernel.store(layout, &position, read)];
                    let space = layout.order().into_iter().map(|axis| axis as u32).collect();
                    let label = format!("copy of {}", layer_of(&scope.function.graph[value.node]));
                    let kernel = finish_map(kernel, space, block, stores, &label);
                    steps.push(PlanStep::Kernel(Box::new(kernel)));
                    return Ok(());
                }
                Err(MustStore(inner))
                    if inner == value && !scope.arrays.contains_key(&value) && scope.parameter(value).is_none() =>
                {
                    return Err(unsupported(scope, value.node, "its value is not computed"));
                }
                Err(MustStore(inner)) => self.store_value(scope, inner, steps)?,
            }
        }
        Err(unsupported(scope, value.node, "it cannot be copied"))
    }

    /// Copies what a node reads through operand `slot` in a kernel of some residues, at every position of its coordinates, to
    /// an array over these.
    ///
    /// # Errors
    /// A value that nothing computes.
    pub fn copy_operand(
        &mut self,
        scope: &mut Scope,
        (node, slot, residues): &(NodeIndex, usize, Residues),
        coordinates: &[Coordinate],
        layout: &Layout,
        steps: &mut Vec<PlanStep>,
    ) -> Result<(), PlanError> {
        for _ in 0..64 {
            let reader = &scope.function.graph[*node];
            let mut kernel = KernelBuilder::new(coordinates.iter().map(|coordinate| coordinate.size.clone()));
            let number = |variable: u32| {
                let place = coordinates.iter().position(|coordinate| coordinate.variable == variable);
                place.map_or_else(IndexExpr::default, |place| IndexExpr::variable(place as u32))
            };
            let variables = 0..reader.variables.len() as u32;
            let positions: Vec<IndexExpr> =
                variables.map(|variable| residues::position(residues, variable, number(variable))).collect();
            let mut block = Block::default();
            match kernel.operand(scope, &mut block, *node, *slot, &positions) {
                Ok(read) => {
                    let space: Vec<u32> = (0..coordinates.len() as u32).collect();
                    let position: Vec<IndexExpr> = space.iter().copied().map(IndexExpr::variable).collect();
                    let stores = vec![kernel.store(layout, &position, read)];
                    let label = format!("operand of {}", layer_of(&scope.function.graph[*node]));
                    let kernel = finish_map(kernel, space, block, stores, &label);
                    steps.push(PlanStep::Kernel(Box::new(kernel)));
                    return Ok(());
                }
                Err(MustStore(value)) => self.store_value(scope, value, steps)?,
            }
        }
        Err(unsupported(scope, *node, "its operand cannot be copied"))
    }

    /// Where a value of a group is written: what something else decided, a part of a concatenation, or a new array with
    /// its axes in `order` and the halo that padded readers want. The layout is known to later reads from now on.
    pub fn place(&mut self, scope: &mut Scope, value: Value, order: &[usize]) -> Layout {
        if let Some(layout) = scope.arrays.get(&value) {
            return layout.clone();
        }
        let halos = wanted_halos(scope, value);
        let layout = match scope.destinations.get(&value).and_then(|layouts| layouts.first()) {
            Some(layout) if halos.is_empty() => layout.clone(),
            _ => match self.concat_part(scope, value, order) {
                Some(layout) if halos.is_empty() => layout,
                _ => {
                    let shape =
                        if halos.is_empty() { with_spare(scope, value, order) } else { scope.function.shape_of(value) };
                    self.array(scope.function.element_of(value), &shape, order, &halos)
                }
            },
        };
        scope.arrays.insert(value, layout.clone());
        if !halos.is_empty() {
            scope.halos.insert(value, halos);
        }
        layout
    }

    /// The part of a concatenation that a value becomes, when that is all the concatenation wants of it.
    fn concat_part(&mut self, scope: &mut Scope, value: Value, order: &[usize]) -> Option<Layout> {
        let (reader, slot) = scope
            .function
            .readers(value)
            .into_iter()
            .find(|(reader, _)| matches!(scope.op(*reader), Op::Concat { .. }))?;
        let node = &scope.function.graph[reader];
        let Op::Concat { along, offsets } = &node.op else { return None };
        let slot = slot as usize;
        let trace = operand_trace(scope.function, node, slot, value);
        let length = &offsets[slot + 1] - &offsets[slot];
        // Axis `i` of the value is axis `axes[i]` of the concatenation, shifted along it. Both are read whole: more of the value
        // would be written over other parts.
        let mut axes = Vec::with_capacity(trace.position.len());
        for (expr, size) in trace.position.iter().zip(scope.function.shape_of(value)) {
            let is_along = expr.plus_size(&offsets[slot]).as_variable() == Some(*along);
            let variable = if is_along { *along } else { expr.as_variable().filter(|variable| variable != along)? };
            let axis = node.outputs[0].variables.iter().position(|v| *v == variable)?;
            if axes.contains(&axis) || size != if is_along { length.clone() } else { node.size_of(variable) } {
                return None;
            }
            axes.push(axis);
        }
        let along = node.outputs[0].variables.iter().position(|v| v == along)?;
        let mut whole_order: Vec<usize> = order.iter().map(|axis| axes[*axis]).collect();
        if !axes.contains(&along) {
            if length != Size::ONE {
                return None;
            }
            // One position of a new axis: it lies right inside of the axis that it comes after.
            let before = along.checked_sub(1).and_then(|before| whole_order.iter().position(|axis| *axis == before));
            whole_order.insert(before.map_or(0, |before| before + 1), along);
        }
        if whole_order.len() != node.outputs[0].variables.len() {
            return None;
        }
        let whole = self.place(scope, reader.into(), &whole_order);
        let part = whole.part(along, &offsets[slot]);
        let strides = axes.iter().map(|axis| part.strides[*axis].clone()).collect();
        Some(Layout { strides, ..part })
    }

    /// The parameters that a group reads become arrays as they lie.
    ///
    /// # Errors
    /// A parameter without data.
    pub fn bind_parameters(&mut self, scope: &mut Scope, nodes: &[NodeIndex]) -> Result<(), PlanError> {
        for node in nodes {
            let reader = &scope.function.graph[*node];
            for (slot, operand) in scope.function.operands(*node).into_iter().enumerate() {
                let start = operand_trace(scope.function, reader, slot, operand);
                let trace =
                    through_views(scope.function, start, &|value| scope.is_virtual(value), &|v| reader.size_of(v));
                if let Some(position) = scope.parameter(trace.value)
                    && !scope.arrays.contains_key(&trace.value)
                {
                    let layout = self.parameter(position)?;
                    scope.arrays.insert(trace.value, layout);
                }
            }
        }
        Ok(())
    }
}

/// A map kernel from its parts.
pub fn finish_map(
    kernel: KernelBuilder,
    space: Vec<u32>,
    body: Block,
    stores: Vec<super::kernel::Store>,
    label: &str,
) -> Kernel {
    let nest = Nest {
        parallel: space.clone(),
        space,
        contracted: Vec::new(),
        body,
        folds: Vec::new(),
        finish: Block::default(),
        stores,
    };
    finish(kernel, Body::Nest(nest), label)
}

/// A kernel from its parts, with its cost.
pub fn finish(mut kernel: KernelBuilder, mut body: Body, label: &str) -> Kernel {
    super::sweep::sweep(&mut kernel, &mut body);
    let cost = super::cost::cost(&kernel, &body);
    Kernel {
        label: label.into(),
        variables: kernel.variables,
        pointers: kernel.pointers,
        accesses: kernel.accesses,
        body,
        cost,
    }
}

/// A refusal that names the layer.
pub fn unsupported(scope: &Scope, node: NodeIndex, reason: impl Into<String>) -> PlanError {
    PlanError::Unsupported { layer: layer_of(&scope.function.graph[node]), reason: reason.into() }
}

/// The values that are read outside of their group, or are results.
fn needed_values(function: &Function, groups: &Groups) -> FxHashSet<Value> {
    let mut home: FxHashMap<NodeIndex, usize> = FxHashMap::default();
    for (position, group) in groups.groups.iter().enumerate() {
        home.extend(group.nodes().map(|node| (node, position)));
    }
    let mut needed = FxHashSet::default();
    for (position, group) in groups.groups.iter().enumerate() {
        for node in group.nodes() {
            for operand in function.operands(node) {
                sources(function, groups, operand, &mut |value| {
                    if home.get(&value.node) != Some(&position) {
                        needed.insert(value);
                    }
                });
            }
        }
    }
    for value in &function.outputs {
        sources(function, groups, *value, &mut |value| {
            needed.insert(value);
        });
    }
    needed
}

fn sources(function: &Function, groups: &Groups, value: Value, found: &mut dyn FnMut(Value)) {
    if groups.virtuals.contains(&value.node) {
        for operand in function.operands(value.node) {
            sources(function, groups, operand, found);
        }
    } else {
        found(value);
    }
}

/// The zero border that matrix kernels which read a value beyond its extents want around it: empty when none does.
pub fn wanted_halos(scope: &Scope, value: Value) -> Vec<Halo> {
    let rank = scope.function.output_of(value).variables.len();
    let mut halos = vec![Halo::default(); rank];
    collect_halos(scope, value, &mut halos);
    if halos.iter().all(Halo::is_none) { Vec::new() } else { halos }
}

fn collect_halos(scope: &Scope, value: Value, halos: &mut [Halo]) {
    for (reader, slot) in product_readers(scope, value) {
        let node = &scope.function.graph[reader];
        let operand = scope.function.operands(reader)[slot as usize];
        for residues in scope.kernels(reader) {
            let part = residues::part(node, &residues);
            let start = operand_trace(scope.function, &part, slot as usize, operand);
            let below = |other: Value| other != value && scope.is_virtual(other);
            let trace = through_views(scope.function, start, &below, &|v| part.size_of(v));
            if trace.value != value {
                continue;
            }
            let found = padding_halo(scope.function, &trace, &|v| part.size_of(v)).unwrap_or_default();
            for (halo, found) in halos.iter_mut().zip(found) {
                if halo.is_none() {
                    halo.byte = found.byte;
                } else if halo.byte != found.byte && !found.is_none() {
                    // Another filling: that reader copies.
                    continue;
                }
                halo.before = halo.before.larger(&found.before);
                halo.after = halo.after.larger(&found.after);
            }
        }
    }
}

/// The contractions that read a value, through views too.
fn product_readers(scope: &Scope, value: Value) -> Vec<(NodeIndex, u32)> {
    let mut found = Vec::new();
    for (reader, slot) in scope.function.readers(value) {
        if super::group::matrix_product(scope.function, reader).is_some() {
            found.push((reader, slot));
        } else if matches!(scope.op(reader), Op::View) && scope.is_virtual(reader.into()) {
            found.extend(product_readers(scope, reader.into()));
        }
    }
    found
}

/// The halo that makes a guarded read an unguarded one: every condition is the extent of an axis, and the fill is one byte
/// repeated.
pub fn padding_halo(function: &Function, trace: &Trace, variable_size: &dyn Fn(u32) -> Size) -> Option<Vec<Halo>> {
    let shape = function.shape_of(trace.value);
    let mut halos = vec![Halo::default(); shape.len()];
    let (conditions, fill) = trace.guard.as_ref()?;
    let byte = match fill.element {
        ElementType::U8 | ElementType::I8 => fill.bits as u8,
        _ if fill.is(0.) => 0,
        _ => return None,
    };
    if !trace.position.iter().all(IndexExpr::is_affine) {
        return None;
    }
    for condition in conditions {
        let strang_ir::Condition::Range { expression, low, high } = condition else { return None };
        let axis = trace.position.iter().position(|expr| expr == expression)?;
        if !low.is(0) || *high != shape[axis] {
            return None;
        }
        let (least, most) = expression.bounds(variable_size)?;
        halos[axis].byte = byte;
        halos[axis].before = Size::ZERO.larger(&-least);
        halos[axis].after = Size::ZERO.larger(&(most + Size::ONE - &shape[axis]));
    }
    Some(halos)
}

/// The axes of a value in the order in which its readers would like to find it: a view that all readers go through says
/// how (a reshape after a transpose wants the transposed order); else as they are.
pub fn order_for_readers(scope: &Scope, value: Value) -> Vec<usize> {
    let rank = scope.function.output_of(value).variables.len();
    let natural: Vec<usize> = (0..rank).collect();
    let readers = scope.function.readers(value);
    let Some((reader, _)) = readers.first() else { return natural };
    if let Some(order) = order_for_bytes(scope, value) {
        return order;
    }
    if let Some(order) = order_for_merges(scope, value, &readers) {
        return order;
    }
    if !readers.iter().all(|(other, _)| scope.groups.virtuals.contains(other)) {
        return natural;
    }
    // Follow the chain of views to its last link, keeping the position in terms of that link's variables.
    let mut last = *reader;
    while let [(next, _)] = scope.function.readers(last.into())[..]
        && scope.groups.virtuals.contains(&next)
        && matches!(scope.op(next), Op::View)
    {
        last = next;
    }
    let node = &scope.function.graph[last];
    if !matches!(node.op, Op::View) {
        return natural;
    }
    let start = operand_trace(scope.function, node, 0, scope.function.operands(last)[0]);
    let below = |other: Value| other != value && scope.is_virtual(other);
    let trace = through_views(scope.function, start, &below, &|v| node.size_of(v));
    if trace.value != value {
        return natural;
    }
    ranked(&trace.position, &node.outputs[0].variables)
}

/// The order that a product of bytes wants: what it sums innermost lies side by side.
pub fn order_for_bytes(scope: &Scope, value: Value) -> Option<Vec<usize>> {
    if scope.function.element_of(value) != ElementType::U8 {
        return None;
    }
    product_readers(scope, value).into_iter().find_map(|(reader, slot)| {
        let node = &scope.function.graph[reader];
        let start = operand_trace(scope.function, node, slot as usize, scope.function.operands(reader)[slot as usize]);
        let below = |other: Value| other != value && scope.is_virtual(other);
        let trace = through_views(scope.function, start, &below, &|v| node.size_of(v));
        let innermost = *node.contracted().last()?;
        let axis = trace.position.iter().position(|expr| expr.as_variable() == Some(innermost))?;
        (trace.value == value).then(|| (0..trace.position.len()).filter(|other| *other != axis).chain([axis]).collect())
    })
}

/// The order that all readers want, if one of them reads quotient and remainder of one variable: the reshape after a
/// transpose, where the read went through the views already.
fn order_for_merges(scope: &Scope, value: Value, readers: &[(NodeIndex, u32)]) -> Option<Vec<usize>> {
    let merges = |expr: &IndexExpr| expr.terms().iter().any(|(atom, _)| matches!(atom, Atom::Remainder(..)));
    let mut orders = readers.iter().map(|(reader, slot)| {
        let node = &scope.function.graph[*reader];
        let map = node.maps.get(*slot as usize)?;
        if map.fill.is_some() || !matches!(node.op, Op::Dot { .. } | Op::Map(_) | Op::Reduce(_)) {
            return None;
        }
        let mut variables = node.outputs[0].variables.clone();
        variables.extend(node.contracted());
        let trace = operand_trace(scope.function, node, *slot as usize, value);
        Some((ranked(&trace.position, &variables), map.exprs.iter().any(merges)))
    });
    let (order, mut any) = orders.next()??;
    for other in orders {
        let (other, merged) = other?;
        any |= merged;
        if other != order {
            return None;
        }
    }
    any.then_some(order)
}

/// Axes in the order in which some variables come that are read at them.
fn ranked(position: &[IndexExpr], variables: &[u32]) -> Vec<usize> {
    let mut keyed: Vec<(usize, i64, usize)> = Vec::with_capacity(position.len());
    for (axis, expr) in position.iter().enumerate() {
        let mut rank_of = usize::MAX;
        expr.visit_variables(&mut |v| {
            rank_of = rank_of.min(variables.iter().position(|other| *other == v).unwrap_or(usize::MAX));
        });
        // Of the parts of one variable, quotients (large steps) come before remainders.
        let minor = expr.terms().iter().any(|(atom, _)| matches!(atom, Atom::Remainder(..)));
        keyed.push((rank_of, i64::from(minor), axis));
    }
    keyed.sort();
    keyed.into_iter().map(|(_, _, axis)| axis).collect()
}

/// A size as a number for estimates: symbols count as 64.
pub fn estimate(size: &Size) -> i64 {
    let bindings = size.symbols().into_iter().map(|symbol| (symbol, 64)).collect();
    size.eval(&bindings).unwrap_or(i64::MAX)
}
