//! Cutting a model at wires into two, a head and a tail whose composition equals the whole: for two machines, or two processes.
//!
//! | file | what |
//! |---|---|
//! | `balance` | the cheapest wires between two halves of the work |
//! | `part` | the two modules |
//! | `message` | wires as eight-bit integers |

mod balance;
mod message;
mod part;

pub use balance::balanced;

use crate::plan::layer_of;
use petgraph::{Direction, stable_graph::NodeIndex};
use rustc_hash::FxHashSet;
use strang_ir::{ElementType, Function, Module, Op, Size, Value, analysis};

/// A model in two.
#[derive(Clone, Debug)]
pub struct Cut {
    /// From the inputs to the wires, which are its results.
    pub head: Module,
    /// From the wires, and those inputs that it reads too, to the results of the whole.
    pub tail: Module,
    /// What crosses.
    pub messages: Vec<Message>,
    /// Operations of a run of the head and of the tail.
    pub flops: [Size; 2],
}

/// A value that crosses from the head to the tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its name, as a result of the head and an input of the tail.
    pub name: String,
    /// The type of an element as it crosses.
    pub element: ElementType,
    /// Its sizes.
    pub shape: Vec<Size>,
}

impl Message {
    /// The bytes that cross in a run.
    pub fn bytes(&self) -> Size {
        analysis::bytes_of(self.element, &self.shape.iter().cloned().product())
    }
}

/// Why a model is not cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// There is no such wire.
    #[error("the model has no value or layer `{name}`; some that it has: {}", some.join(", "))]
    Wire {
        /// What was asked for.
        name: String,
        /// Some that there are.
        some: Vec<String>,
    },
    /// One side computes nothing.
    #[error("a cut there leaves nothing for the {0} to compute; cut at a value between the inputs and the results")]
    Nothing(&'static str),
    /// The model keeps state from run to run.
    #[error("the model keeps `{0}` from run to run, and a state cannot be cut from what computes it")]
    State(String),
}

/// The nodes of the head when a model is cut at values, by their names or by those of their layers.
///
/// # Errors
/// A name that no value has.
pub fn at(module: &Module, names: &[String]) -> Result<FxHashSet<NodeIndex>, CutError> {
    let function = module.entry();
    let mut head = FxHashSet::default();
    for name in names {
        let mut pending = vec![wire(function, name)?];
        while let Some(node) = pending.pop() {
            if !is_leaf(&function.graph[node].op) && head.insert(node) {
                pending.extend(function.graph.neighbors_directed(node, Direction::Incoming));
            }
        }
    }
    Ok(head)
}

/// The last node that has a name, or is of a layer of this name.
fn wire(function: &Function, name: &str) -> Result<NodeIndex, CutError> {
    let order: Vec<NodeIndex> =
        function.order().into_iter().filter(|node| !is_leaf(&function.graph[*node].op)).collect();
    let bare = name.strip_prefix('%').unwrap_or(name);
    let is_value = |node: &&NodeIndex| function.graph[**node].outputs.iter().any(|output| *output.name == *bare);
    let is_layer = |node: &&NodeIndex| layer_of(&function.graph[**node]) == name;
    let found = order.iter().rfind(is_value).or_else(|| order.iter().rfind(is_layer));
    found.copied().ok_or_else(|| {
        let mut some: Vec<String> = order
            .iter()
            .flat_map(|node| {
                let node = &function.graph[*node];
                [layer_of(node), node.outputs.first().map_or_else(String::new, |output| output.name.to_string())]
            })
            .collect();
        some.sort_by(|a, b| strsim::jaro_winkler(name, b).total_cmp(&strsim::jaro_winkler(name, a)));
        some.dedup();
        some.truncate(5);
        CutError::Wire { name: name.to_owned(), some }
    })
}

fn is_leaf(op: &Op) -> bool {
    matches!(op, Op::Input(_) | Op::Param(_) | Op::Const(_))
}

/// Cuts a verified model: the nodes of the head, which must have in it all that they read, go there, all others to the tail. With `quantised`
/// floats cross as eight-bit integers with a scale, which is not exact.
///
/// # Errors
/// A side without work, or a model with states.
pub fn cut(module: &Module, head: &FxHashSet<NodeIndex>, quantised: bool) -> Result<Cut, CutError> {
    let function = module.entry();
    if let Some((input, _)) = function.states.first() {
        let node = &function.graph[function.inputs[*input as usize]];
        return Err(CutError::State(node.outputs[0].name.to_string()));
    }
    let computing: Vec<NodeIndex> =
        function.order().into_iter().filter(|node| !is_leaf(&function.graph[*node].op)).collect();
    if !computing.iter().any(|node| head.contains(node)) {
        return Err(CutError::Nothing("head"));
    }
    if computing.iter().all(|node| head.contains(node)) {
        return Err(CutError::Nothing("tail"));
    }
    let flops = [true, false].map(|side| {
        let own = computing.iter().filter(|node| head.contains(node) == side);
        own.map(|node| analysis::cost(module, function, *node).flops).sum()
    });
    let wires = part::crossing(function, &computing, head);
    let parts = part::parts(module, head, &wires);
    let [mut head, mut tail] = parts;
    if quantised {
        message::quantise(&mut head, &mut tail);
    }
    let function = head.entry();
    let message = |(place, value): (usize, &Value)| Message {
        name: function.output_names[place].to_string(),
        element: function.element_of(*value),
        shape: function.shape_of(*value),
    };
    let messages = function.outputs.iter().enumerate().map(message).collect();
    Ok(Cut { head, tail, messages, flops })
}
