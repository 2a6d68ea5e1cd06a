//! Fusion: which nodes become one kernel.
//!
//! A kernel has one root: a contraction, a reduction, a row operation, a gather, a scatter or a plain map. Maps that read
//! the root's result position by position join it as its epilogue; a group of maps that only one row operation or
//! reduction reads becomes its prologue; a softmax between two contractions becomes attention. Views and constants are
//! never kernels: reads go through them. Groups come in an order in which they can run.

mod attention;
mod join;

pub use attention::row_variable;

use super::trace::{Trace, operand_trace, through_views};
use petgraph::stable_graph::NodeIndex;
use rustc_hash::{FxHashMap, FxHashSet};
use strang_ir::{ElementType, Function, IndexExpr, Literal, Node, Op, Size, Value, op::Norm};

/// The operand of a scatter that is written.
pub const UPDATES: usize = 1;

/// Nodes that become one kernel (or one control step).
#[derive(Clone, Debug)]
pub struct Group {
    /// What the root is.
    pub kind: Kind,
    /// The node that decides the loop variables: variable `i` of the kernel is variable `i` of the root.
    pub root: NodeIndex,
    /// Maps evaluated before the root, in order.
    pub prologue: Vec<NodeIndex>,
    /// Maps evaluated on the root's result, in order.
    pub epilogue: Vec<NodeIndex>,
    /// For every node: which kernel variable each of its variables is.
    pub frames: FxHashMap<NodeIndex, Vec<u32>>,
    /// Sizes of kernel variables beyond the root's (the contracted variable of attention's scores).
    pub extra: Vec<Size>,
}

/// What the root of a group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A map, a gather or a view that must be copied.
    Map,
    /// A reduction, or a contraction that is no matrix product.
    Fold,
    /// A softmax or a normalisation over rows.
    Rows,
    /// A contraction.
    Contraction,
    /// Two contractions with a softmax between; the root is the second.
    Attention {
        /// The first contraction.
        scores: NodeIndex,
        /// The softmax.
        softmax: NodeIndex,
    },
    /// A concatenation.
    Concat,
    /// A scatter.
    Scatter,
    /// Something with its own steps: a scan, a loop, an `if`, a sort, a custom operation.
    Control,
}

impl Group {
    fn new(kind: Kind, root: NodeIndex, function: &Function) -> Self {
        let variables = function.graph[root].variables.len() as u32;
        let frames = FxHashMap::from_iter([(root, (0..variables).collect())]);
        Group { kind, root, prologue: Vec::new(), epilogue: Vec::new(), frames, extra: Vec::new() }
    }

    /// The nodes whose values exist in the kernel, in order of evaluation.
    pub fn nodes(&self) -> impl Iterator<Item = NodeIndex> + '_ {
        self.prologue.iter().chain([&self.root]).chain(&self.epilogue).copied()
    }

    /// The kernel variables over which the values of the epilogue exist.
    pub fn space(&self, function: &Function) -> Vec<u32> {
        function.graph[self.root].outputs[0].variables.clone()
    }
}

/// All groups of a function.
#[derive(Debug, Default)]
pub struct Groups {
    /// The groups, in an order in which they can run.
    pub groups: Vec<Group>,
    /// The nodes that are no kernels: reads go through them.
    pub virtuals: FxHashSet<NodeIndex>,
}

/// Groups the nodes of a function.
pub fn group(function: &Function) -> Groups {
    let mut builder =
        Builder { function, groups: Vec::new(), virtuals: FxHashSet::default(), home: FxHashMap::default() };
    for node in function.order() {
        builder.place(node);
    }
    Groups { groups: builder.groups.into_iter().flatten().collect(), virtuals: builder.virtuals }
}

struct Builder<'a> {
    function: &'a Function,
    /// `None` where a group was merged into a later one.
    groups: Vec<Option<Group>>,
    virtuals: FxHashSet<NodeIndex>,
    /// The group that computes a node.
    home: FxHashMap<NodeIndex, usize>,
}

impl Builder<'_> {
    fn node(&self, index: NodeIndex) -> &Node {
        &self.function.graph[index]
    }

    fn place(&mut self, index: NodeIndex) {
        let node = self.node(index);
        let kind = match &node.op {
            Op::Input(_) | Op::Param(_) | Op::Const(_) => return,
            Op::View if self.view_is_virtual(index) => {
                self.virtuals.insert(index);
                return;
            }
            Op::Map(_) if self.is_index_only(index) || self.is_widening(index) => {
                self.virtuals.insert(index);
                return;
            }
            Op::View | Op::Gather => Kind::Map,
            Op::Map(_) | Op::Norm { kind: Norm::Batch, .. } => {
                if self.join_as_epilogue(index) {
                    return;
                }
                Kind::Map
            }
            Op::Dot { .. } => {
                if let Some(attention) = self.attention(index) {
                    self.add(attention);
                    return;
                }
                if matrix_product(self.function, index).is_some() { Kind::Contraction } else { Kind::Fold }
            }
            Op::Reduce(_) | Op::ArgReduce { .. } => Kind::Fold,
            Op::Softmax { .. } | Op::Norm { .. } => Kind::Rows,
            Op::Concat { .. } => Kind::Concat,
            Op::Scatter { .. } => Kind::Scatter,
            Op::Scan { .. } | Op::Sort { .. } | Op::If { .. } | Op::Loop { .. } | Op::Call(_) | Op::Custom { .. } => {
                Kind::Control
            }
        };
        let mut group = Group::new(kind, index, self.function);
        match group.kind {
            Kind::Fold | Kind::Rows => self.take_prologue(&mut group, 0),
            Kind::Scatter => self.take_prologue(&mut group, UPDATES),
            _ => {}
        }
        self.add(group);
    }

    fn add(&mut self, group: Group) {
        for node in group.nodes() {
            self.home.insert(node, self.groups.len());
        }
        self.groups.push(Some(group));
    }

    /// A view is a way of reading unless its fill differs from one that a reader puts around it.
    fn view_is_virtual(&self, index: NodeIndex) -> bool {
        match self.node(index).maps[0].fill {
            None => true,
            Some(fill) => self.fills_agree(index.into(), fill),
        }
    }

    fn fills_agree(&self, value: Value, fill: Literal) -> bool {
        self.function.readers(value).into_iter().all(|(reader, slot)| {
            let node = self.node(reader);
            let own = node.maps.get(slot as usize).and_then(|map| map.fill);
            own.is_none_or(|own| own == fill) && (!matches!(node.op, Op::View) || self.fills_agree(reader.into(), fill))
        })
    }

    /// Whether a map depends on positions and constants alone, so that computing it again is cheaper than storing it.
    fn is_index_only(&self, index: NodeIndex) -> bool {
        self.function.operands(index).iter().all(|operand| match &self.node(operand.node).op {
            Op::Const(_) => true,
            Op::Map(_) | Op::View => self.virtuals.contains(&operand.node) && self.is_index_only(operand.node),
            _ => false,
        })
    }

    /// Whether a map makes few bits into many at a small cost, as dequantisation does, for readers that may compute it
    /// themselves: they read fewer bytes then, and nothing stores the many.
    fn is_widening(&self, index: NodeIndex) -> bool {
        let node = self.node(index);
        let Op::Map(function) = &node.op else { return false };
        let mut parts = 0;
        function.visit(&mut |_| parts += 1);
        let operands = self.function.operands(index);
        let has_guard = |(slot, operand): (usize, &Value)| self.trace(index, slot, *operand).guard.is_some();
        let is_short = parts <= 6 && !operands.iter().enumerate().any(has_guard);
        let narrow = |value: Value| self.function.element_of(value).bits() <= 8;
        let is_number = |value: Value| self.function.shape_of(value).is_empty();
        let mut arrays = operands.into_iter().filter(|value| !is_number(*value));
        let (Some(array), None) = (arrays.next(), arrays.next()) else { return false };
        is_short && narrow(array) && node.outputs[0].element == ElementType::F32 && self.is_read_by_maps(index)
    }

    /// Whether all that reads a value, through views too, computes on elements.
    fn is_read_by_maps(&self, index: NodeIndex) -> bool {
        let value = Value::from(index);
        let mut readers = self.function.readers(value).into_iter();
        !self.function.outputs.contains(&value)
            && readers.all(|(reader, _)| match self.node(reader).op {
                Op::Map(_) | Op::Reduce(_) => true,
                Op::View => self.is_read_by_maps(reader),
                _ => false,
            })
    }

    fn trace(&self, node: NodeIndex, slot: usize, operand: Value) -> Trace {
        let reader = self.node(node);
        let start = operand_trace(self.function, reader, slot, operand);
        through_views(self.function, start, &|value| self.virtuals.contains(&value.node), &|v| reader.size_of(v))
    }

    /// The values that are read below a value, through views and maps that are no kernels.
    fn sources(&self, value: Value, found: &mut Vec<Value>) {
        if self.virtuals.contains(&value.node) {
            for operand in self.function.operands(value.node) {
                self.sources(operand, found);
            }
        } else {
            found.push(value);
        }
    }

    fn reads_group(&self, operand: Value, home: usize) -> bool {
        let mut below = Vec::new();
        self.sources(operand, &mut below);
        below.iter().any(|value| self.home.get(&value.node) == Some(&home))
    }

    /// Whether a group after this one reads its values.
    fn is_read_later(&self, home: usize) -> bool {
        self.groups[home + 1..].iter().flatten().any(|later| {
            later
                .nodes()
                .any(|node| self.function.operands(node).iter().any(|operand| self.reads_group(*operand, home)))
        })
    }

    /// Whether a node's value is read by a node that is neither in its group nor `except`, or is a result.
    fn read_outside(&self, index: NodeIndex, home: usize, except: NodeIndex) -> bool {
        let value = Value::from(index);
        self.function.outputs.contains(&value)
            || self
                .real_readers(value)
                .into_iter()
                .any(|reader| reader != except && self.home.get(&reader) != Some(&home))
    }

    /// The nodes that read a value, through views too.
    fn real_readers(&self, value: Value) -> Vec<NodeIndex> {
        let mut readers = Vec::new();
        for (reader, _) in self.function.readers(value) {
            if self.virtuals.contains(&reader)
                || (matches!(self.node(reader).op, Op::View) && self.view_is_virtual(reader))
            {
                if self.function.outputs.contains(&reader.into()) {
                    readers.push(reader);
                }
                readers.extend(self.real_readers(reader.into()));
            } else {
                readers.push(reader);
            }
        }
        readers
    }

    /// Whether only `reader` reads the values of a group.
    fn only_read_by(&self, home: usize, reader: NodeIndex) -> bool {
        self.groups[home].as_ref().is_some_and(|group| group.nodes().all(|node| !self.read_outside(node, home, reader)))
    }
}

/// The variables of a scatter over which its updates go: those that its updates, indices or targets mention.
pub fn scattered_variables(node: &Node, target: &[IndexExpr]) -> Vec<u32> {
    let mentioned = |v: &u32| {
        node.maps[UPDATES..].iter().any(|map| map.mentions(*v)) || target.iter().any(|expr| expr.mentions(*v))
    };
    (0..node.variables.len() as u32).filter(mentioned).collect()
}

/// Products that matrix kernels do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// Of two f32 arrays.
    Floats,
    /// Of f32, rounded to bf16, with weights of bf16, summed in f32.
    Halves,
    /// Of unsigned bytes with weights of signed bytes, summed in i32.
    Bytes,
}

/// Which matrix kernel does a `dot`, if one does.
pub fn matrix_product(function: &Function, index: NodeIndex) -> Option<Product> {
    let node = &function.graph[index];
    let Op::Dot { accumulator } = node.op else { return None };
    let operands = function.operands(index);
    let [a, b] = operands[..] else { return None };
    if node.outputs[0].element != accumulator || node.contracted().is_empty() {
        return None;
    }
    let elements = [function.element_of(a), function.element_of(b)];
    let zeros = node.maps.iter().all(|map| map.fill.is_none_or(|fill| fill.is(0.)));
    match (accumulator, elements) {
        (ElementType::F32, [ElementType::F32, ElementType::F32]) => zeros.then_some(Product::Floats),
        (ElementType::F32, [ElementType::F32, ElementType::BF16]) => {
            (zeros && is_weight(function, b)).then_some(Product::Halves)
        }
        (ElementType::F32, [ElementType::BF16, ElementType::F32]) => {
            (zeros && is_weight(function, a)).then_some(Product::Halves)
        }
        (ElementType::I32, [ElementType::U8, ElementType::I8]) => is_weight(function, b).then_some(Product::Bytes),
        (ElementType::I32, [ElementType::I8, ElementType::U8]) => is_weight(function, a).then_some(Product::Bytes),
        _ => None,
    }
}

/// Whether a value is a parameter, seen through views.
fn is_weight(function: &Function, value: Value) -> bool {
    match &function.graph[value.node].op {
        Op::Param(_) => true,
        Op::View => is_weight(function, function.operands(value.node)[0]),
        _ => false,
    }
}
