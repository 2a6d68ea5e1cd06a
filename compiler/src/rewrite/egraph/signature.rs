//! Interned signatures: everything of a node but its operands, its names and where it came from.

use rustc_hash::FxHashMap;
use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};
use strang_ir::{Node, Source};

/// The signatures of a rewriting. Nodes that differ only in names and places of variables have one.
#[derive(Clone, Debug, Default)]
pub struct Signatures {
    nodes: Vec<Arc<Node>>,
    numbers: FxHashMap<Key, u32>,
}

impl Signatures {
    /// The number of a node's signature. Of nodes with one signature the first names the variables.
    pub fn intern(&mut self, node: Node) -> u32 {
        let mut node = node.into_canonical();
        node.source = Source::None;
        node.block = None;
        let key = Key(Arc::new(node));
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let number = self.nodes.len() as u32;
        self.nodes.push(key.0.clone());
        self.numbers.insert(key, number);
        number
    }

    /// The node of a signature.
    pub fn node(&self, number: u32) -> &Arc<Node> {
        &self.nodes[number as usize]
    }
}

#[derive(Clone, Debug)]
struct Key(Arc<Node>);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_shape(&self.0, state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        same_shape(&self.0, &other.0)
    }
}

impl Eq for Key {}

/// Hashes what [`same_shape`] compares.
fn hash_shape<H: Hasher>(node: &Node, state: &mut H) {
    node.op.hash(state);
    node.variables.len().hash(state);
    node.variables.iter().for_each(|variable| variable.axis.size.hash(state));
    node.maps.hash(state);
    node.outputs.iter().for_each(|output| (output.element, &output.variables).hash(state));
}

/// Whether two nodes are equal but for names and sources, their variables being in the same places.
pub fn same_shape(left: &Node, right: &Node) -> bool {
    left.op == right.op
        && left.variables.len() == right.variables.len()
        && left.variables.iter().zip(&right.variables).all(|(a, b)| a.axis.size == b.axis.size)
        && left.maps == right.maps
        && left.outputs.len() == right.outputs.len()
        && left.outputs.iter().zip(&right.outputs).all(|(a, b)| a.element == b.element && a.variables == b.variables)
}
