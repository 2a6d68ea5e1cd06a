//! Contractions as matrix products: which variables are rows, columns, taps and depth; halos instead of guards; packing
//! of weights.

use super::{
    PlanError,
    build::{KernelBuilder, MustStore},
    group::{Group, Product, matrix_product},
    kernel::{Block, Body, Depthwise, Gemm, Instruction, Kernel, LoopVariable, RightOperand},
    layout::{Halo, Layout},
    lower::{Planner, estimate, finish, order_for_readers, padding_halo, wanted_halos},
    nest::label,
    patches::{as_they_lie, patches},
    residues::{self, Residues},
    scope::Scope,
    trace::{Trace, through_map, through_views},
    windows::{Coordinate, coordinates},
};
use crate::plan::kernel::PlanStep;
use petgraph::stable_graph::NodeIndex;
use strang_ir::{Atom, ElementType, IndexExpr, Op, Size, Value};

/// Rows that are worth a tile, where there is a choice: the images of a network are 7 positions wide in the end.
const FEWEST_ROWS: i64 = 7;

/// The variables of a product by where they occur.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    /// Which operand is the left one.
    pub left: usize,
    /// Which is the right one.
    pub right: usize,
    /// Output variables of the left operand alone.
    pub rows: Vec<u32>,
    /// Output variables of the right operand alone.
    pub columns: Vec<u32>,
    /// Output variables of both.
    pub shared: Vec<u32>,
    /// Contracted variables, in order.
    pub contracted: Vec<u32>,
}

/// The variables of a product by where they occur. Weights are the right operand; of two arrays the right one is that
/// with the innermost output variable.
pub fn roles(scope: &Scope, root: NodeIndex) -> Roles {
    let node = &scope.function.graph[root];
    let operands = scope.function.operands(root);
    let is_weight = |slot: usize| {
        let start = super::trace::operand_trace(scope.function, node, slot, operands[slot]);
        let trace = through_views(scope.function, start, &|value| scope.is_virtual(value), &|v| node.size_of(v));
        scope.parameter(trace.value).is_some()
    };
    let output = &node.outputs[0].variables;
    let only = |slot: usize, v: u32| node.maps[slot].mentions(v) && !node.maps[1 - slot].mentions(v);
    let right = match (is_weight(0), is_weight(1)) {
        (false, true) => 1,
        (true, false) => 0,
        _ => usize::from(!output.iter().rev().find(|v| only(0, **v) || only(1, **v)).is_some_and(|v| only(0, *v))),
    };
    let left = 1 - right;
    let (mut rows, mut columns, mut shared) = (Vec::new(), Vec::new(), Vec::new());
    for variable in output {
        match (only(left, *variable), only(right, *variable)) {
            (true, _) => rows.push(*variable),
            (_, true) => columns.push(*variable),
            _ => shared.push(*variable),
        }
    }
    // A batch of one that neither reads at is no channel of a product of channels alone.
    let is_idle = |v: &u32| node.size_of(*v).is(1) && node.maps.iter().all(|map| !map.mentions(*v));
    if columns.is_empty() && !rows.is_empty() && shared.iter().filter(|v| !is_idle(v)).count() == 1 {
        let idle: Vec<u32> = shared.extract_if(.., |v| is_idle(v)).collect();
        rows.splice(..0, idle);
    }
    Roles { left, right, rows, columns, shared, contracted: node.contracted() }
}

impl Planner<'_> {
    /// A kernel of a contraction.
    ///
    /// # Errors
    /// Something that has no kernel.
    pub fn lower_contraction(
        &mut self,
        scope: &mut Scope,
        group: &Group,
        steps: &mut Vec<PlanStep>,
    ) -> Result<Result<Kernel, MustStore>, PlanError> {
        let nodes: Vec<NodeIndex> = group.nodes().collect();
        self.bind_parameters(scope, &nodes)?;
        let mut kernels = Vec::new();
        for residues in scope.kernels(group.root) {
            match self.lower_product(scope, group, residues, steps)? {
                Some(Ok(kernel)) => kernels.push(kernel),
                Some(Err(must_store)) => return Ok(Err(must_store)),
                None => return Ok(self.lower_fold(scope, group)),
            }
        }
        let Some(last) = kernels.pop() else { return Ok(self.lower_fold(scope, group)) };
        steps.extend(kernels.into_iter().map(|kernel| PlanStep::Kernel(Box::new(kernel))));
        Ok(Ok(last))
    }

    /// The kernel of some residues of a product; `None` for one that is computed term by term.
    fn lower_product(
        &mut self,
        scope: &mut Scope,
        group: &Group,
        residues: Residues,
        steps: &mut Vec<PlanStep>,
    ) -> Result<Option<Result<Kernel, MustStore>>, PlanError> {
        let root = group.root;
        let mut roles = roles(scope, root);
        let depthwise = roles.columns.is_empty() && roles.shared.len() == 1 && !roles.rows.is_empty();
        if roles.columns.is_empty() && !depthwise && roles.rows.is_empty() {
            return Ok(None);
        }
        let node = &scope.function.graph[root];
        // Channels that are read by a table, as those of a resized axis are, lie nowhere side by side.
        let is_table = |(atom, _): &(Atom, Size)| matches!(atom, Atom::Table(..));
        if depthwise && node.maps[roles.left].exprs.iter().flat_map(IndexExpr::terms).any(is_table) {
            return Ok(None);
        }
        let part = residues::part(node, &residues);
        let sizes = part.variables.iter().map(|v| v.size().clone()).chain(group.extra.iter().cloned());
        let mut kernel = KernelBuilder::new(sizes);
        kernel.residues = residues;
        let frame = group.frames[&root].clone();
        let inner = if depthwise { roles.shared[0] } else { *roles.contracted.last().expect("a product contracts") };
        let left = self.product_operand(scope, &mut kernel, root, roles.left, &frame, inner, steps)?;
        let a = match left {
            Ok(a) => a,
            Err(must_store) => return Ok(Some(Err(must_store))),
        };
        let product = matrix_product(scope.function, root);
        let is_of_bytes = product == Some(Product::Bytes);
        if is_of_bytes && !kernel.accesses[a as usize].address.coefficient(inner).is(1) {
            // Their kernel reads depths that lie side by side; what does not vary along them never does.
            let read = (root, roles.left, kernel.residues.clone());
            if scope.copies.contains_key(&read) {
                return Ok(None);
            }
            if !self.copy_view(scope, &kernel, &read, (&frame, inner), steps)? {
                self.copy_read(scope, read, inner, steps)?;
            }
            return self.lower_product(scope, group, kernel.residues, steps);
        }
        let right_inner = if depthwise { roles.shared[0] } else { roles.columns.last().copied().unwrap_or(inner) };
        let right = self.product_operand(scope, &mut kernel, root, roles.right, &frame, right_inner, steps)?;
        let b = match right {
            Ok(b) => b,
            Err(must_store) => return Ok(Some(Err(must_store))),
        };
        let is_weight = self.is_weight_access(&kernel, b);
        // The kernels of bytes and of bf16 read packed weights, and that of bf16 has no form for channels alone.
        let left = if is_of_bytes { ElementType::U8 } else { ElementType::F32 };
        let is_narrow = is_of_bytes || product == Some(Product::Halves);
        if is_narrow && ((depthwise && !is_of_bytes) || !is_weight || kernel.accesses[a as usize].element != left) {
            return Ok(None);
        }
        let read = (root, roles.left, kernel.residues.clone());
        let is_of_floats = [a, b].map(|access| kernel.accesses[access as usize].element) == [ElementType::F32; 2];
        if is_weight
            && is_of_floats
            && kernel.residues.is_empty()
            && !scope.copies.contains_key(&read)
            && let Some(coordinates) = patches(&kernel, a, &roles)
        {
            self.copy_at(scope, read, coordinates, steps)?;
            return self.lower_product(scope, group, kernel.residues, steps);
        }
        // Columns that are one axis of the weights lie side by side in the result too.
        let address = kernel.accesses[b as usize].address.clone();
        roles.columns.sort_by_key(|v| std::cmp::Reverse(estimate(&address.coefficient(*v))));
        // One column is worth no tile where another variable has more, and would lie between those that are merged.
        let has_more = roles.columns.iter().any(|v| !kernel.size_of(*v).is(1));
        let single_columns: Vec<u32> = roles.columns.extract_if(.., |v| has_more && kernel.size_of(*v).is(1)).collect();
        let order = product_order(scope, group, &roles, is_weight);
        let mut block = Block::default();
        let result = block.push(Instruction::Folded(0));
        kernel.locals.insert(root.into(), result);
        let stores = match self.epilogue(scope, group, &mut kernel, &mut block, &[root], &order) {
            Ok(stores) => stores,
            Err(must_store) => return Ok(Some(Err(must_store))),
        };
        let output = &scope.function.graph[root].outputs[0].variables;
        roles.rows = order.iter().map(|axis| output[*axis]).filter(|v| roles.rows.contains(v)).collect();
        let label = label(scope, group);
        let vectorised = |access: u32| kernel.accesses[access as usize].address.coefficient(inner).is(1);
        if depthwise && is_weight && vectorised(a) {
            let [channels] = roles.shared[..] else { unreachable!("one shared variable was asked for") };
            let columns = roles.rows.pop().expect("rows were asked for");
            let weights = self.pack_taps(&mut kernel, b, &roles.contracted, channels);
            let body = Depthwise {
                batch: roles.rows,
                columns,
                channels,
                taps: roles.contracted,
                a,
                weights,
                finish: block,
                stores,
            };
            return Ok(Some(Ok(finish(kernel, Body::Depthwise(body), &label))));
        }
        if depthwise || (roles.columns.is_empty() && !is_weight) {
            // A product with a vector, or channels that are not contiguous: term by term.
            return Ok(None);
        }
        if is_weight && let Some(body) = self.grouped(&mut kernel, &roles, [a, b], (&block, &stores)) {
            return Ok(Some(Ok(finish(kernel, Body::Depthwise(body), &label))));
        }
        if is_weight
            && let [.., outer, inner] = roles.contracted[..]
            && is_window(&kernel, a, outer, inner)
        {
            self.gather(&mut kernel, b, outer, inner);
        }
        if is_weight && let Some(contracted) = as_they_lie(&kernel, a, &roles.contracted) {
            roles.contracted = contracted;
        }
        for list in [&mut roles.rows, &mut roles.columns, &mut roles.contracted] {
            for position in (1..list.len()).rev() {
                if kernel.merge(list[position - 1], list[position], &[&block]) {
                    list.remove(position - 1);
                }
            }
        }
        let mut batch = roles.shared;
        batch.extend(single_columns);
        let columns = match roles.columns.pop() {
            Some(columns) => columns,
            None => single(&mut kernel),
        };
        batch.extend(roles.columns);
        // A symbol may be bound to 1, as batches often are: what is known to fill most of a tile comes before it.
        let fills = |size: &Size| size.as_constant().is_some_and(|size| size >= FEWEST_ROWS);
        let rows = |v: &u32| (fills(&kernel.size_of(*v)), estimate(&kernel.size_of(*v)));
        let rows = match roles.rows.iter().copied().max_by_key(rows) {
            Some(rows) => rows,
            None => single(&mut kernel),
        };
        batch.extend(roles.rows.into_iter().filter(|v| *v != rows));
        let mut taps = roles.contracted;
        let depth = taps.pop().expect("a product contracts");
        let right = match is_weight.then(|| self.pack_right(&mut kernel, b, &batch, &taps, depth, columns)).flatten() {
            Some(packed) => packed,
            None if kernel.accesses[b as usize].element != ElementType::F32 => {
                return Ok(None);
            }
            None => RightOperand::Strided(b),
        };
        let body = Gemm { batch, rows, columns, taps, depth, a, b: right, finish: block, stores };
        Ok(Some(Ok(finish(kernel, Body::Gemm(body), &label))))
    }

    /// The access to an operand of a product: affine and without a guard, after a copy where it cannot be otherwise.
    /// `inner` is the variable that is best contiguous.
    #[expect(clippy::too_many_arguments, reason = "the operand and the kernel it is for")]
    pub fn product_operand(
        &mut self,
        scope: &mut Scope,
        kernel: &mut KernelBuilder,
        root: NodeIndex,
        slot: usize,
        frame: &[u32],
        inner: u32,
        steps: &mut Vec<PlanStep>,
    ) -> Result<Result<u32, MustStore>, PlanError> {
        let sizes: Vec<Size> = (0..kernel.variables.len() as u32).map(|v| kernel.size_of(v)).collect();
        let size_of = |v: u32| sizes.get(v as usize).cloned().unwrap_or_else(|| Size::symbol("iterations"));
        if let Some((layout, coordinates)) = scope.copies.get(&(root, slot, kernel.residues.clone())) {
            let here = |variable: u32| IndexExpr::variable(frame[variable as usize]);
            let position = coordinates.iter().map(|expression| expression.substitute(&here, &|slot| slot, &size_of));
            return Ok(Ok(kernel.access(layout, &position.collect::<Vec<_>>(), None)));
        }
        let function = scope.function;
        let map = &function.graph[root].maps[slot];
        let operand = function.operands(root)[slot];
        let read = through_map(function, map, operand, &kernel.positions(frame), None, &size_of);
        let trace = through_views(function, read.clone(), &|value| scope.is_virtual(value), &size_of);
        if scope.is_virtual(trace.value) || scope.literal(trace.value).is_some() {
            self.copy_read(scope, (root, slot, kernel.residues.clone()), inner, steps)?;
            return self.product_operand(scope, kernel, root, slot, frame, inner, steps);
        }
        if !scope.arrays.contains_key(&trace.value) {
            return Ok(Err(MustStore(trace.value)));
        }
        if trace.guard.is_some() {
            let Some(halos) = padding_halo(function, &trace, &size_of) else {
                // A view may have the axes that its own operand has as one.
                if let Some(halos) = padding_halo(function, &read, &size_of).filter(|_| scope.is_virtual(operand)) {
                    self.copy_padded(scope, operand, &read, (inner, halos), steps)?;
                    return self.product_operand(scope, kernel, root, slot, frame, inner, steps);
                }
                self.copy_read(scope, (root, slot, kernel.residues.clone()), inner, steps)?;
                return self.product_operand(scope, kernel, root, slot, frame, inner, steps);
            };
            if !covers(scope.halos.get(&trace.value), &halos) {
                self.copy_padded(scope, trace.value, &trace, (inner, halos), steps)?;
            }
        }
        let layout = scope.arrays[&trace.value].clone();
        let address = super::trace::recombined(&layout.address(&trace.position), &size_of);
        let affine = address.terms().iter().all(|(atom, _)| match atom {
            Atom::Variable(_) => true,
            other => mentions_only_counters(&IndexExpr::atom(other.clone())),
        });
        let scattered = trace.position.iter().any(super::build::reads_data);
        if !affine || scattered {
            self.copy_read(scope, (root, slot, kernel.residues.clone()), inner, steps)?;
            return self.product_operand(scope, kernel, root, slot, frame, inner, steps);
        }
        Ok(Ok(kernel.access(&layout, &trace.position, None)))
    }

    /// Copies an image into one with a halo, the axis of `inner` innermost; later reads go there.
    fn copy_padded(
        &mut self,
        scope: &mut Scope,
        value: Value,
        trace: &Trace,
        (inner, needed): (u32, Vec<Halo>),
        steps: &mut Vec<PlanStep>,
    ) -> Result<(), PlanError> {
        let wanted = wanted_halos(scope, value);
        let halos = if covers(Some(&wanted), &needed) { wanted } else { needed };
        let shape = scope.function.shape_of(value);
        let mut order = scope.arrays.get(&value).map_or_else(|| (0..shape.len()).collect(), Layout::order);
        if let Some(axis) = trace.position.iter().position(|expr| expr.as_variable() == Some(inner)) {
            order.retain(|other| *other != axis);
            order.push(axis);
        }
        let layout = self.array(scope.function.element_of(value), &shape, &order, &halos);
        self.copy_to(scope, value, &layout, steps)?;
        scope.arrays.insert(value, layout);
        scope.halos.insert(value, halos);
        Ok(())
    }

    /// Copies a view that an operand reads into an array with the halo that it wants, the axis of `inner` innermost, if there is one.
    fn copy_view(
        &mut self,
        scope: &mut Scope,
        kernel: &KernelBuilder,
        (root, slot, _): &(NodeIndex, usize, Residues),
        (frame, inner): (&[u32], u32),
        steps: &mut Vec<PlanStep>,
    ) -> Result<bool, PlanError> {
        let (node, operand) = (&scope.function.graph[*root], scope.function.operands(*root)[*slot]);
        let size_of = |v: u32| kernel.size_of(v);
        let read = through_map(scope.function, &node.maps[*slot], operand, &kernel.positions(frame), None, &size_of);
        let is_axis = |expression: &IndexExpr| expression.as_variable() == Some(inner);
        let is_plain = read.guard.is_none() && read.position.iter().all(IndexExpr::is_affine);
        if !scope.is_virtual(operand) || !is_plain || !read.position.iter().any(is_axis) {
            return Ok(false);
        }
        self.copy_padded(scope, operand, &read, (inner, Vec::new()), steps)?;
        Ok(true)
    }

    /// Copies what an operand reads in a kernel of some residues into an array over its coordinates.
    fn copy_read(
        &mut self,
        scope: &mut Scope,
        read: (NodeIndex, usize, Residues),
        inner: u32,
        steps: &mut Vec<PlanStep>,
    ) -> Result<(), PlanError> {
        let (root, slot, residues) = &read;
        let coordinates = coordinates(&residues::part(&scope.function.graph[*root], residues), *slot, inner);
        self.copy_at(scope, read, coordinates, steps)
    }

    /// Copies what an operand reads into an array over given coordinates, outermost first; it is read there from now on.
    fn copy_at(
        &mut self,
        scope: &mut Scope,
        read: (NodeIndex, usize, Residues),
        coordinates: Vec<Coordinate>,
        steps: &mut Vec<PlanStep>,
    ) -> Result<(), PlanError> {
        let (root, slot, _) = &read;
        let shape: Vec<Size> = coordinates.iter().map(|coordinate| coordinate.size.clone()).collect();
        let order: Vec<usize> = (0..shape.len()).collect();
        let element = scope.function.element_of(scope.function.operands(*root)[*slot]);
        let layout = self.array(element, &shape, &order, &[]);
        self.copy_operand(scope, &read, &coordinates, &layout, steps)?;
        let positions = coordinates.into_iter().map(|coordinate| coordinate.expression).collect();
        scope.copies.insert(read, (layout, positions));
        Ok(())
    }

    fn is_weight_access(&self, kernel: &KernelBuilder, access: u32) -> bool {
        let access = &kernel.accesses[access as usize];
        let buffer = kernel.pointers[access.pointer as usize].buffer;
        let base = self.plan.buffers[buffer as usize].base;
        matches!(base, strang_runtime::program::Base::Weights(_)) && access.guard.is_none()
    }
}

/// Channels of an image whose windows are read along with them: so few are no depth for a tile.
pub const FEW_CHANNELS: i64 = 16;

/// Whether a few channels lie side by side, and after them those of the next position of a window, so that both are one run.
fn is_window(kernel: &KernelBuilder, access: u32, outer: u32, inner: u32) -> bool {
    let address = &kernel.accesses[access as usize].address;
    let channels = kernel.size_of(inner);
    let few = channels.as_constant().is_some_and(|channels| channels < FEW_CHANNELS);
    few && address.coefficient(inner).is(1) && address.coefficient(outer) == channels
}

/// A variable with one position, for products with a vector.
fn single(kernel: &mut KernelBuilder) -> u32 {
    kernel.variables.push(LoopVariable::Loop(Size::ONE));
    kernel.variables.len() as u32 - 1
}

/// The physical order of the axes of a product: rows as readers want them, columns innermost; with weights, the variables
/// that weights share come between, but for those of which readers want one position at a time: these slices lie apart.
fn product_order(scope: &Scope, group: &Group, roles: &Roles, is_weight: bool) -> Vec<usize> {
    let root = &scope.function.graph[group.root];
    let output = &root.outputs[0].variables;
    // The readers of the last value that leaves the kernel decide.
    let last = group.epilogue.iter().rev().chain([&group.root]).find(|node| scope.needed.contains(&(**node).into()));
    let wanted: Vec<u32> = match last {
        Some(last) => {
            let frame = &group.frames[last];
            let axes = &scope.function.graph[*last].outputs[0].variables;
            order_for_readers(scope, (*last).into()).iter().map(|axis| frame[axes[*axis] as usize]).collect()
        }
        None => output.clone(),
    };
    let is_sliced = |v: &u32| {
        let read = last.and_then(|last| {
            let frame = &group.frames[last];
            let axes = &scope.function.graph[*last].outputs[0].variables;
            axes.iter().position(|axis| frame[*axis as usize] == *v).map(|axis| (Value::from(*last), axis))
        });
        read.is_some_and(|(value, axis)| is_read_in_slices(scope, value, axis, DEEPEST_SLICES))
    };
    let class = |v: &u32| {
        if roles.columns.contains(v) {
            3
        } else if !roles.shared.contains(v) || !is_weight {
            1
        } else if is_sliced(v) {
            0
        } else {
            2
        }
    };
    let mut ordered: Vec<u32> = wanted.iter().copied().filter(|v| class(v) < 3).collect();
    ordered.sort_by_cached_key(class);
    ordered.extend(&roles.columns);
    ordered.iter().filter_map(|v| output.iter().position(|other| other == v)).collect()
}

/// How many maps are looked through for readers of slices.
const DEEPEST_SLICES: usize = 4;

/// Whether everything that is made of a value reads it at single positions of an axis.
fn is_read_in_slices(scope: &Scope, value: Value, axis: usize, depth: usize) -> bool {
    let readers = scope.function.readers(value);
    let reads_slice = |(reader, slot): &(NodeIndex, u32)| {
        let node = &scope.function.graph[*reader];
        let Some(map) = node.maps.get(*slot as usize) else { return false };
        if map.exprs[axis].as_size().is_some() {
            return true;
        }
        let passes = depth > 0 && matches!(node.op, Op::Map(_) | Op::View | Op::Concat { .. });
        let variable = map.exprs[axis].as_variable().filter(|_| passes);
        let own = variable.and_then(|v| node.outputs[0].variables.iter().position(|other| *other == v));
        own.is_some_and(|own| is_read_in_slices(scope, (*reader).into(), own, depth - 1))
    };
    !readers.is_empty() && readers.iter().all(reads_slice)
}

fn covers(have: Option<&Vec<Halo>>, want: &[Halo]) -> bool {
    match have {
        Some(have) if have.len() == want.len() => have.iter().zip(want).all(|(have, want)| {
            let alike = want.is_none() || have.byte == want.byte;
            alike && have.before.is_at_least(&want.before, 1) && have.after.is_at_least(&want.after, 1)
        }),
        _ => want.iter().all(Halo::is_none),
    }
}

/// Whether only iterations of repeats occur.
fn mentions_only_counters(expr: &IndexExpr) -> bool {
    let mut only = !super::build::reads_data(expr);
    expr.visit_variables(&mut |v| only &= v >= super::layout::COUNTER);
    only
}
