//! Loop nests and row kernels: maps, reductions, contractions that are no matrix products, softmax and normalisation,
//! concatenation and scatter.

use super::{
    PlanError,
    build::{KernelBuilder, MustStore, reads_data},
    error::layer_of,
    group::{Group, Kind, UPDATES, scattered_variables},
    kernel::{Block, Body, Fold, Instruction, Kernel, Nest, PlanStep, RowOperation, Rows, Store},
    layout::Layout,
    lower::{Planner, finish, finish_map, order_for_bytes, order_for_readers, unsupported},
    scope::Scope,
    trace::through_map,
};
use petgraph::stable_graph::NodeIndex;
use strang_ir::{
    Atom, ElementType, IndexExpr, Literal, Op, Size, Value,
    op::{self, Norm},
    scalar::Binary,
};

/// The order of the axes that products of bytes want which read a value of a group of maps.
fn wanted_by_bytes(scope: &Scope, group: &Group) -> Option<Vec<usize>> {
    let output = |node: NodeIndex| -> Vec<u32> {
        let axes = &scope.function.graph[node].outputs[0].variables;
        axes.iter().map(|axis| group.frames[&node][*axis as usize]).collect()
    };
    let root = output(group.root);
    group.nodes().filter(|node| output(*node) == root).find_map(|node| order_for_bytes(scope, node.into()))
}

impl Planner<'_> {
    /// A kernel of maps.
    pub fn lower_map(&mut self, scope: &mut Scope, group: &Group) -> Result<Kernel, MustStore> {
        self.bind(scope, group);
        let mut kernel = group_kernel(scope, group);
        let mut block = Block::default();
        let root = group.root;
        let positions = kernel.positions(&group.frames[&root]);
        let value = kernel.node_value(scope, &mut block, root, &positions)?;
        kernel.locals.insert(root.into(), value);
        let order = wanted_by_bytes(scope, group).unwrap_or_else(|| self.output_order(scope, &kernel, root));
        let stores = self.epilogue(scope, group, &mut kernel, &mut block, &[root], &order)?;
        let space = order.iter().map(|axis| scope.function.graph[root].outputs[0].variables[*axis]).collect();
        Ok(finish_map(kernel, space, block, stores, &label(scope, group)))
    }

    /// A kernel of a reduction or of a contraction term by term.
    pub fn lower_fold(&mut self, scope: &mut Scope, group: &Group) -> Result<Kernel, MustStore> {
        self.bind(scope, group);
        let mut kernel = group_kernel(scope, group);
        let root = group.root;
        let node = &scope.function.graph[root];
        let mut body = Block::default();
        evaluate(scope, group, &group.prologue, &mut kernel, &mut body)?;
        let positions = kernel.positions(&group.frames[&root]);
        let slots = scope.function.operands(root).len();
        let mut operands = Vec::with_capacity(slots);
        for slot in 0..slots {
            operands.push(kernel.operand(scope, &mut body, root, slot, &positions)?);
        }
        let output = node.outputs[0].element;
        let element = scope.function.element_of(scope.function.operands(root)[0]);
        let (fold, folded) = match &node.op {
            Op::Dot { accumulator } => {
                let when = zero_guards(&kernel, &mut body, &operands);
                let elements = scope.function.operands(root).into_iter().map(|value| scope.function.element_of(value));
                let elements: Vec<ElementType> = elements.collect();
                let narrow = op::factor(&elements);
                let factors: Vec<u32> = operands
                    .iter()
                    .zip(elements)
                    .map(|(value, element)| {
                        let narrow = narrow.unwrap_or(element);
                        let value = cast(&mut body, *value, element, narrow);
                        cast(&mut body, value, narrow, *accumulator)
                    })
                    .collect();
                let one = body.push(Instruction::Literal(Literal::one(*accumulator)));
                let (b, firsts) = match factors.as_slice() {
                    [] | [_] => (one, factors.as_slice()),
                    [firsts @ .., last] => (*last, firsts),
                };
                let first = firsts.first().copied().unwrap_or(one);
                let a = firsts
                    .iter()
                    .skip(1)
                    .fold(first, |product, factor| body.push(Instruction::Binary(Binary::Multiply, product, *factor)));
                (Fold::MultiplyAdd { a, b, when }, *accumulator)
            }
            Op::Reduce(monoid) => {
                let narrow = matches!(element, ElementType::F16 | ElementType::BF16);
                let wide = if narrow { ElementType::F32 } else { element };
                let value = cast(&mut body, operands[0], element, wide);
                (Fold::Monoid { monoid: *monoid, value, when: None }, wide)
            }
            Op::ArgReduce { largest, last } => {
                (Fold::Arg { value: operands[0], largest: *largest, last: *last }, ElementType::I64)
            }
            _ => return Err(MustStore(root.into())),
        };
        kernel.locals.clear();
        let mut end = Block::default();
        let result = end.push(Instruction::Folded(0));
        let result = cast(&mut end, result, folded, output);
        kernel.locals.insert(root.into(), result);
        let order = self.output_order(scope, &kernel, root);
        let stores = self.epilogue(scope, group, &mut kernel, &mut end, &[root], &order)?;
        let space: Vec<u32> = order.iter().map(|axis| node.outputs[0].variables[*axis]).collect();
        let nest = Nest {
            parallel: space.clone(),
            space,
            contracted: node.contracted(),
            body,
            folds: vec![fold],
            finish: end,
            stores,
        };
        Ok(finish(kernel, Body::Nest(nest), &label(scope, group)))
    }

    /// A kernel of a softmax or a normalisation.
    pub fn lower_rows(&mut self, scope: &mut Scope, group: &Group) -> Result<Kernel, MustStore> {
        self.bind(scope, group);
        let mut kernel = group_kernel(scope, group);
        let root = group.root;
        let node = &scope.function.graph[root];
        let mut prologue = Block::default();
        evaluate(scope, group, &group.prologue, &mut kernel, &mut prologue)?;
        let positions = kernel.positions(&group.frames[&root]);
        let element = node.outputs[0].element;
        let operand = kernel.operand(scope, &mut prologue, root, 0, &positions)?;
        let value = cast(&mut prologue, operand, element, ElementType::F32);
        let order = self.output_order(scope, &kernel, root);
        let prologue_stores = self.stores(scope, group, &mut kernel, &group.prologue, &order);
        kernel.locals.clear();
        let mut end = Block::default();
        let mut result = end.push(Instruction::Folded(0));
        let (operation, over) = match &node.op {
            Op::Softmax { over, log } => (if *log { RowOperation::LogSoftmax } else { RowOperation::Softmax }, over),
            Op::Norm { kind, over, epsilon } => {
                let epsilon = epsilon.to_f64() as f32;
                let operation = match kind {
                    Norm::Rms => RowOperation::RmsNorm { epsilon },
                    _ => RowOperation::LayerNorm { epsilon },
                };
                let slots = scope.function.operands(root).len();
                for slot in 1..slots {
                    let read = kernel.operand(scope, &mut end, root, slot, &positions)?;
                    let read = cast(&mut end, read, element, ElementType::F32);
                    let function = if slot == 1 { Binary::Multiply } else { Binary::Add };
                    result = end.push(Instruction::Binary(function, result, read));
                }
                (operation, over)
            }
            _ => return Err(MustStore(root.into())),
        };
        let result = cast(&mut end, result, ElementType::F32, element);
        kernel.locals.insert(root.into(), result);
        let stores = self.epilogue(scope, group, &mut kernel, &mut end, &[root], &order)?;
        let variables = order.iter().map(|axis| node.outputs[0].variables[*axis]);
        let (row, space) = variables.partition(|variable| over.contains(variable));
        let rows = Rows { space, row, prologue, value, prologue_stores, operation, finish: end, stores };
        Ok(finish(kernel, Body::Rows(rows), &label(scope, group)))
    }

    /// Copies what has not been written in place into a concatenation.
    pub fn lower_concat(
        &mut self,
        scope: &mut Scope,
        root: NodeIndex,
        steps: &mut Vec<PlanStep>,
    ) -> Result<(), PlanError> {
        let node = scope.function.graph[root].clone();
        let Op::Concat { along, offsets } = &node.op else {
            return Err(unsupported(scope, root, "it is no concatenation"));
        };
        let order: Vec<usize> = (0..node.outputs[0].variables.len()).collect();
        let whole = self.place(scope, root.into(), &order);
        let axis = node.outputs[0].variables.iter().position(|v| v == along);
        let Some(axis) = axis else { return Err(unsupported(scope, root, "it joins an axis that it does not have")) };
        for (slot, operand) in scope.function.operands(root).into_iter().enumerate() {
            let part = whole.part(axis, &offsets[slot]);
            // A value that occurs twice was written in place once.
            let is_there = |layout: &Layout| layout.buffer == part.buffer && layout.offset == part.offset;
            if scope.arrays.get(&operand).is_some_and(is_there) {
                continue;
            }
            self.copy_part(scope, root, slot, operand, &part, axis, &offsets[slot + 1] - &offsets[slot], steps)?;
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one call site, and each is a different thing")]
    fn copy_part(
        &mut self,
        scope: &mut Scope,
        root: NodeIndex,
        slot: usize,
        operand: Value,
        part: &Layout,
        axis: usize,
        size: Size,
        steps: &mut Vec<PlanStep>,
    ) -> Result<(), PlanError> {
        let node = scope.function.graph[root].clone();
        let Op::Concat { offsets, .. } = &node.op else { return Ok(()) };
        loop {
            let sizes = node.outputs[0]
                .variables
                .iter()
                .enumerate()
                .map(|(position, variable)| if position == axis { size.clone() } else { node.size_of(*variable) });
            let mut kernel = KernelBuilder::new(sizes);
            let position: Vec<IndexExpr> =
                (0..node.outputs[0].variables.len() as u32).map(IndexExpr::variable).collect();
            let mut shifted = position.clone();
            shifted[axis] = shifted[axis].plus_size(&offsets[slot]);
            let positions = super::trace::variable_positions(&node, 0, &shifted);
            let mut block = Block::default();
            let trace =
                through_map(scope.function, &node.maps[slot], operand, &positions, None, &|v| kernel.size_of(v));
            match kernel.read(scope, &mut block, trace) {
                Ok(value) => {
                    let store = kernel.store(part, &position, value);
                    let space = part.order().into_iter().map(|axis| axis as u32).collect();
                    let kernel = finish_map(kernel, space, block, vec![store], &layer_of(&node));
                    steps.push(PlanStep::Kernel(Box::new(kernel)));
                    return Ok(());
                }
                Err(MustStore(value)) => self.store_value(scope, value, steps)?,
            }
        }
    }

    /// Writes updates into a copy of an array.
    ///
    /// # Errors
    /// A scatter whose output is no array.
    pub fn lower_scatter(
        &mut self,
        scope: &mut Scope,
        group: &Group,
        steps: &mut Vec<PlanStep>,
    ) -> Result<Result<Kernel, MustStore>, PlanError> {
        self.bind(scope, group);
        let root = group.root;
        let node = scope.function.graph[root].clone();
        let Op::Scatter { reduction, target } = &node.op else {
            return Err(unsupported(scope, root, "it is no scatter"));
        };
        let order: Vec<usize> = (0..node.outputs[0].variables.len()).collect();
        let operands = scope.function.operands(root);
        let mut kernel = group_kernel(scope, group);
        let positions = kernel.positions(&group.frames[&root]);
        let mut block = Block::default();
        let update = evaluate(scope, group, &group.prologue, &mut kernel, &mut block)
            .and_then(|()| kernel.operand(scope, &mut block, root, UPDATES, &positions));
        let update = match update {
            Ok(update) => update,
            Err(must_store) => return Ok(Err(must_store)),
        };
        kernel.locals.clear();
        let reads = match kernel.index_reads(scope, root, &positions, 2) {
            Ok(reads) => reads,
            Err(must_store) => return Ok(Err(must_store)),
        };
        let already = scope.arrays.contains_key(&root.into());
        let layout = self.place(scope, root.into(), &order);
        if !already {
            // The base is copied once, before the updates; a retry of this kernel finds it done.
            self.copy_to(scope, operands[0], &layout, steps)?;
        }
        let moving = scattered_variables(&node, target);
        let target: Vec<IndexExpr> = target
            .iter()
            .map(|expr| expr.substitute(&IndexExpr::variable, &|slot| reads[&slot], &|v| kernel.size_of(v)))
            .collect();
        let store = kernel.store(&layout, &target, update);
        let shape = node.shape(0);
        let checked: Vec<(IndexExpr, Size)> =
            target.iter().cloned().zip(shape).filter(|(expr, _)| reads_data(expr)).collect();
        kernel.accesses[store.access as usize].checked = checked;
        let parallel =
            moving.iter().copied().filter(|v| target.iter().any(|expr| expr.as_variable() == Some(*v))).collect();
        let nest = Nest {
            space: moving,
            parallel,
            contracted: Vec::new(),
            body: block,
            folds: Vec::new(),
            finish: Block::default(),
            stores: vec![Store { combine: *reduction, ..store }],
        };
        Ok(Ok(finish(kernel, Body::Nest(nest), &label(scope, group))))
    }

    /// Evaluates the maps on a root's result and writes what others need.
    ///
    /// # Errors
    /// A value that must be an array for these reads.
    pub fn epilogue(
        &mut self,
        scope: &mut Scope,
        group: &Group,
        kernel: &mut KernelBuilder,
        block: &mut Block,
        roots: &[NodeIndex],
        order: &[usize],
    ) -> Result<Vec<Store>, MustStore> {
        evaluate(scope, group, &group.epilogue, kernel, block)?;
        let nodes: Vec<NodeIndex> = roots.iter().chain(&group.epilogue).copied().collect();
        Ok(self.stores(scope, group, kernel, &nodes, order))
    }

    /// Writes of the values of nodes that something outside the group needs. `order` is the physical order of the axes
    /// of the root's result.
    pub fn stores(
        &mut self,
        scope: &mut Scope,
        group: &Group,
        kernel: &mut KernelBuilder,
        nodes: &[NodeIndex],
        order: &[usize],
    ) -> Vec<Store> {
        let root_variables = group.space(scope.function);
        let mut stores = Vec::new();
        for index in nodes {
            let value = Value::from(*index);
            if !scope.needed.contains(&value) {
                continue;
            }
            let output = &scope.function.graph[*index].outputs[0];
            let frame = &group.frames[index];
            let axes: Vec<u32> = output.variables.iter().map(|v| frame[*v as usize]).collect();
            let own_order: Vec<usize> =
                order.iter().filter_map(|axis| axes.iter().position(|v| *v == root_variables[*axis])).collect();
            let own_order = if own_order.len() == axes.len() { own_order } else { (0..axes.len()).collect() };
            let layout = self.place(scope, value, &own_order);
            let local = kernel.locals[&value];
            let positions = kernel.positions(&axes);
            stores.push(kernel.store(&layout, &positions, local));
            // Results are written to all of their places while the value is at hand.
            if kind_writes_anywhere(&group.kind)
                && let Some(layouts) = scope.destinations.get(&value)
            {
                for other in layouts.iter().filter(|other| **other != layout) {
                    stores.push(kernel.store(other, &positions, local));
                }
                scope.delivered.insert(value);
            }
        }
        stores
    }

    /// The physical order of the axes of a result: as its largest operand lies, so that layouts pass through maps.
    pub fn output_order(&self, scope: &Scope, kernel: &KernelBuilder, root: NodeIndex) -> Vec<usize> {
        let output = &scope.function.graph[root].outputs[0].variables;
        // Axes of one position lie anywhere.
        let moving: Vec<u32> = output.iter().copied().filter(|v| !kernel.size_of(*v).is(1)).collect();
        let extent = |position: usize| -> usize {
            let address = &kernel.accesses[position].address;
            moving.iter().filter(|v| !step(address, **v).is(0)).count()
        };
        let main = (0..kernel.accesses.len())
            .filter(|position| kernel.accesses[*position].checked.is_empty())
            .max_by_key(|position| (extent(*position), std::cmp::Reverse(*position)));
        let Some(main) = main.filter(|main| extent(*main) == moving.len() && moving.len() > 1) else {
            return order_for_readers(scope, root.into());
        };
        let address = &kernel.accesses[main].address;
        let is_tabled = address.terms().iter().any(|(atom, _)| matches!(atom, Atom::Table(..)));
        if is_tabled && let Some(order) = order_of_result(scope, root.into(), DEEPEST_RESULT) {
            return order;
        }
        let strides: Vec<Size> = output.iter().map(|v| step(address, *v)).collect();
        let layout =
            super::layout::Layout { buffer: 0, element: ElementType::F32, offset: IndexExpr::default(), strides };
        layout.order()
    }

    fn bind(&mut self, scope: &mut Scope, group: &Group) {
        let nodes: Vec<NodeIndex> = group.nodes().collect();
        // A parameter without data is named when the read of it fails.
        let _ = self.bind_parameters(scope, &nodes);
    }
}

/// How many readers are followed to a result.
const DEEPEST_RESULT: usize = 4;

/// The order in which the axes of a value lie in the result of the function that is made of it, if its only reader, and theirs, read
/// every axis at a position of one of their own. What is read through tables is brought in that order where it is small.
fn order_of_result(scope: &Scope, value: Value, deepest: usize) -> Option<Vec<usize>> {
    if let Some(layouts) = scope.destinations.get(&value) {
        return layouts.first().map(super::layout::Layout::order);
    }
    let [(reader, slot)] = scope.function.readers(value)[..] else { return None };
    let node = &scope.function.graph[reader];
    if deepest == 0 || !matches!(node.op, Op::Dot { .. } | Op::Map(_) | Op::View) {
        return None;
    }
    let outer = order_of_result(scope, reader.into(), deepest - 1)?;
    let output = &node.outputs[0].variables;
    let reads = |axis: usize, variable: u32| node.maps[slot as usize].exprs[axis].mentions(variable);
    let rank = node.maps[slot as usize].exprs.len();
    let order: Vec<usize> =
        outer.iter().filter_map(|place| (0..rank).find(|axis| reads(*axis, output[*place]))).collect();
    (order.len() == rank && (0..rank).all(|axis| order.contains(&axis))).then_some(order)
}

/// How far apart the elements are that an address tells apart by a variable: where it goes through a table or a quotient, those of
/// two entries.
fn step(address: &IndexExpr, variable: u32) -> Size {
    let plain = address.coefficient(variable);
    let mut through = address.terms().iter().filter_map(|(atom, factor)| match atom {
        Atom::Table(_, inner) | Atom::FloorDiv(inner, _) if inner.mentions(variable) => Some(factor.clone()),
        Atom::Remainder(inner, _) | Atom::Clamp(inner, ..) if inner.mentions(variable) => Some(Size::ZERO),
        _ => None,
    });
    match (through.next(), through.next()) {
        (Some(factor), None) if plain.is(0) => factor,
        _ => plain,
    }
}

/// Evaluates maps that are fused into a kernel, so that later reads of them find their values.
fn evaluate(
    scope: &Scope,
    group: &Group,
    members: &[NodeIndex],
    kernel: &mut KernelBuilder,
    block: &mut Block,
) -> Result<(), MustStore> {
    for member in members {
        let positions = kernel.positions(&group.frames[member]);
        let value = kernel.node_value(scope, block, *member, &positions)?;
        kernel.locals.insert((*member).into(), value);
    }
    Ok(())
}

fn group_kernel(scope: &Scope, group: &Group) -> KernelBuilder {
    let root = &scope.function.graph[group.root];
    KernelBuilder::new(root.variables.iter().map(|v| v.size().clone()).chain(group.extra.iter().cloned()))
}

/// The layer of the root; of the last map when there is more.
pub fn label(scope: &Scope, group: &Group) -> String {
    layer_of(&scope.function.graph[group.root])
}

/// Whether writing a value a second time, in whatever order of axes, is as cheap there as in a copy.
fn kind_writes_anywhere(kind: &Kind) -> bool {
    matches!(kind, Kind::Map | Kind::Fold | Kind::Rows)
}

/// A value in another type, when it is another.
pub fn cast(block: &mut Block, value: u32, from: ElementType, to: ElementType) -> u32 {
    if from == to { value } else { block.push(Instruction::Cast(to, value)) }
}

/// Whether all guarded factors are inside: a product with a zero fill is skipped, not added.
fn zero_guards(kernel: &KernelBuilder, block: &mut Block, operands: &[u32]) -> Option<u32> {
    let mut all: Option<u32> = None;
    for operand in operands {
        let Instruction::Load(access) = block.instructions[*operand as usize] else { continue };
        let Some(guard) = &kernel.accesses[access as usize].guard else { continue };
        if !guard.fill.is(0.) {
            continue;
        }
        let inside = block.push(Instruction::Inside(access));
        all = Some(match all {
            None => inside,
            Some(others) => block.push(Instruction::Binary(Binary::And, others, inside)),
        });
    }
    all
}
