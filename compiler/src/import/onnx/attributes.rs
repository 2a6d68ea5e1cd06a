//! Reading a node's attributes. Every attribute must be read by the operator's importer: one that is left over is an
//! error, because ignoring it could change what the model computes.

use super::{
    error::{ImportError, Place},
    proto::{AttributeProto, GraphProto, TensorProto, kind},
};
use std::cell::Cell;

/// The attributes of one node, with the references of an inlined function resolved.
pub struct Attributes<'a> {
    place: Place,
    entries: Vec<Entry<'a>>,
}

struct Entry<'a> {
    name: &'a str,
    value: &'a AttributeProto,
    read: Cell<bool>,
}

impl<'a> Attributes<'a> {
    /// The attributes of a node by name. `resolve` finds what a reference to a function's attribute stands for.
    ///
    /// # Errors
    /// An attribute that is given twice.
    pub fn new(
        place: Place,
        attributes: &'a [AttributeProto],
        resolve: &dyn Fn(&str) -> Option<&'a AttributeProto>,
    ) -> Result<Self, ImportError> {
        let mut entries: Vec<Entry<'a>> = Vec::with_capacity(attributes.len());
        for attribute in attributes {
            if entries.iter().any(|entry| entry.name == attribute.name) {
                let reason = "it is given twice".to_owned();
                return Err(ImportError::Attribute { place, attribute: attribute.name.clone(), reason });
            }
            // A reference to an attribute that the caller left out leaves this one out as well.
            let value = if attribute.reference.is_empty() { Some(attribute) } else { resolve(&attribute.reference) };
            if let Some(value) = value {
                entries.push(Entry { name: &attribute.name, value, read: Cell::new(false) });
            }
        }
        Ok(Attributes { place, entries })
    }

    /// An error about an attribute.
    pub fn error(&self, attribute: &str, reason: impl Into<String>) -> ImportError {
        ImportError::Attribute { place: self.place.clone(), attribute: attribute.to_owned(), reason: reason.into() }
    }

    fn find(&self, name: &str, kinds: &[i32], expected: &str) -> Result<Option<&'a AttributeProto>, ImportError> {
        let Some(entry) = self.entries.iter().find(|entry| entry.name == name) else { return Ok(None) };
        entry.read.set(true);
        // Files of the first format versions do not say the kind.
        if entry.value.kind != 0 && !kinds.contains(&entry.value.kind) {
            return Err(self.error(name, format!("this must be {expected}")));
        }
        Ok(Some(entry.value))
    }

    /// Whether an attribute is given.
    pub fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.name == name)
    }

    /// An integer that may be absent.
    ///
    /// # Errors
    /// A value of another kind.
    pub fn int(&self, name: &str) -> Result<Option<i64>, ImportError> {
        Ok(self.find(name, &[kind::INT], "an integer")?.map(|attribute| attribute.i))
    }

    /// An integer, or what stands for it when it is absent.
    ///
    /// # Errors
    /// A value of another kind.
    pub fn int_or(&self, name: &str, default: i64) -> Result<i64, ImportError> {
        Ok(self.int(name)?.unwrap_or(default))
    }

    /// A yes or no, written as an integer.
    ///
    /// # Errors
    /// A value of another kind.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, ImportError> {
        Ok(self.int(name)?.map_or(default, |value| value != 0))
    }

    /// A number that may be absent.
    ///
    /// # Errors
    /// A value of another kind.
    pub fn float(&self, name: &str) -> Result<Option<f32>, ImportError> {
        Ok(self.find(name, &[kind::FLOAT], "a number")?.map(|attribute| attribute.f))
    }

    /// A number, or what stands for it when it is absent.
    ///
    /// # Errors
    /// A value of another kind.
    pub fn float_or(&self, name: &str, default: f32) -> Result<f32, ImportError> {
        Ok(self.float(name)?.unwrap_or(default))
    }

    /// Numbers that may be absent.
    ///
    /// # Errors
    /// A value of another kind.
    pub fn floats(&self, name: &str) -> Result<Option<&'a [f32]>, ImportError> {
        Ok(self.find(name, &[kind::FLOATS], "a list of numbers")?.map(|attribute| attribute.floats.as_slice()))
    }

    /// Integers that may be absent.
    ///
    /// # Errors
    /// A value of another kind.
    pub fn ints(&self, name: &str) -> Result<Option<&'a [i64]>, ImportError> {
        Ok(self.find(name, &[kind::INTS], "a list of integers")?.map(|attribute| attribute.ints.as_slice()))
    }

    /// Integers, or `default` for each of `count`.
    ///
    /// # Errors
    /// A value of another kind or another number of integers.
    pub fn ints_or(&self, name: &str, count: usize, default: i64) -> Result<Vec<i64>, ImportError> {
        match self.ints(name)? {
            None => Ok(vec![default; count]),
            Some(values) if values.len() == count => Ok(values.to_vec()),
            Some(values) => Err(self.error(name, format!("{count} integers are needed, not {}", values.len()))),
        }
    }

    /// A text, or what stands for it when it is absent.
    ///
    /// # Errors
    /// A value of another kind, or bytes that are not UTF-8.
    pub fn string_or(&self, name: &str, default: &'a str) -> Result<&'a str, ImportError> {
        match self.find(name, &[kind::STRING], "a string")? {
            None => Ok(default),
            Some(attribute) => std::str::from_utf8(&attribute.s).map_err(|_| self.error(name, "this is not UTF-8")),
        }
    }

    /// Texts that may be absent.
    ///
    /// # Errors
    /// A value of another kind, or bytes that are not UTF-8.
    pub fn strings(&self, name: &str) -> Result<Option<Vec<&'a str>>, ImportError> {
        let Some(attribute) = self.find(name, &[kind::STRINGS], "a list of strings")? else { return Ok(None) };
        let texts = attribute.strings.iter().map(|text| std::str::from_utf8(text));
        texts.collect::<Result<_, _>>().map(Some).map_err(|_| self.error(name, "this is not UTF-8"))
    }

    /// A tensor that may be absent.
    ///
    /// # Errors
    /// A value of another kind.
    pub fn tensor(&self, name: &str) -> Result<Option<&'a TensorProto>, ImportError> {
        Ok(self.find(name, &[kind::TENSOR], "a tensor")?.and_then(|attribute| attribute.t.as_ref()))
    }

    /// A graph.
    ///
    /// # Errors
    /// No such attribute, or a value of another kind.
    pub fn graph(&self, name: &str) -> Result<&'a GraphProto, ImportError> {
        let graph = self.find(name, &[kind::GRAPH], "a graph")?.and_then(|attribute| attribute.g.as_ref());
        graph.ok_or_else(|| self.error(name, "this graph is missing"))
    }

    /// An integer that must be given.
    ///
    /// # Errors
    /// No such attribute, or a value of another kind.
    pub fn required_int(&self, name: &str) -> Result<i64, ImportError> {
        self.int(name)?.ok_or_else(|| self.error(name, "this integer is missing"))
    }

    /// Marks attributes as read that do not change the result.
    pub fn ignore(&self, names: &[&str]) {
        for entry in self.entries.iter().filter(|entry| names.contains(&entry.name)) {
            entry.read.set(true);
        }
    }

    /// Checks that all attributes have been read.
    ///
    /// # Errors
    /// An attribute that nothing has read.
    pub fn finish(&self) -> Result<(), ImportError> {
        match self.entries.iter().find(|entry| !entry.read.get()) {
            None => Ok(()),
            Some(entry) => {
                Err(self.error(entry.name, "this attribute is not known for the operator at the model's opset"))
            }
        }
    }

    /// The value of an attribute for a function that refers to it.
    pub fn reference(&self, name: &str) -> Option<&'a AttributeProto> {
        let entry = self.entries.iter().find(|entry| entry.name == name)?;
        entry.read.set(true);
        Some(entry.value)
    }
}
