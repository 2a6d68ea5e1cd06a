//! Axes and index variables. An axis is a direction of an array; an index variable is a position that runs over one.
//! Self-attention scores have one axis and two variables.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use strang_runtime::Size;

/// A direction of arrays. Names are for people: whether arrays fit is decided by sizes alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Axis {
    /// Its name in the text format.
    pub name: Arc<str>,
    /// How many positions it has.
    pub size: Size,
}

impl Axis {
    /// An axis of a given size.
    pub fn new(name: impl Into<Arc<str>>, size: impl Into<Size>) -> Self {
        Axis { name: name.into(), size: size.into() }
    }

    /// An axis whose size is a symbol of the same name, known when a session binds shapes.
    pub fn symbolic(name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        Axis { size: Size::symbol(name.clone()), name }
    }
}

/// An index variable of a node: a position that runs over an axis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variable {
    /// Its name, unique in its node: the axis name, with primes for a second variable over the same axis.
    pub name: Arc<str>,
    /// The axis it runs over.
    pub axis: Axis,
}

impl Variable {
    /// The first variable over an axis, named like it.
    pub fn over(axis: &Axis) -> Self {
        Variable { name: axis.name.clone(), axis: axis.clone() }
    }

    /// A variable over an axis under another name.
    pub fn named(name: impl Into<Arc<str>>, axis: &Axis) -> Self {
        Variable { name: name.into(), axis: axis.clone() }
    }

    /// The number of positions.
    pub fn size(&self) -> &Size {
        &self.axis.size
    }
}
