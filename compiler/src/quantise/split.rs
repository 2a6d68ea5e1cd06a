//! SplitQuant: numbers in a lower, a middle and an upper part, whose ranges are narrow, each with codes of its own.
//!
//! A part holds its numbers where they are and zeros elsewhere, so the parts add up to the whole, and three layers with the
//! parts for weights add up to the layer. Zero has an exact code in each.

use super::{cluster::boundaries, codes::Coding};

/// Parts of a split.
pub const PARTS: usize = 3;

/// Numbers in parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// Which part each number is in.
    pub parts: Vec<u8>,
    /// The codes of each part; as many as there are parts.
    pub codings: Vec<Coding>,
}

impl Split {
    /// Splits finite numbers.
    pub fn new(values: &[f32], bits: u32) -> Self {
        let boundaries = boundaries(values, PARTS);
        let part = |value: &f32| boundaries.iter().filter(|boundary| **boundary <= *value).count() as u8;
        let parts: Vec<u8> = values.iter().map(part).collect();
        let coding = |number: usize| {
            let own = values.iter().zip(&parts).filter(|(_, part)| usize::from(**part) == number);
            Coding::affine(own.map(|(value, _)| *value), bits)
        };
        let codings = (0..=boundaries.len()).map(coding).collect();
        Split { parts, codings }
    }

    /// What the numbers become.
    pub fn rounded(&self, values: &[f32]) -> Vec<f32> {
        let pairs = values.iter().zip(&self.parts);
        pairs.map(|(value, part)| self.codings[usize::from(*part)].rounded(*value)).collect()
    }

    /// A part as it is a layer's weights: its numbers, rounded, and zeros elsewhere.
    pub fn part(&self, values: &[f32], number: usize) -> Vec<f32> {
        let pairs = values.iter().zip(&self.parts);
        let own = |(value, part): (&f32, &u8)| {
            if usize::from(*part) == number { self.codings[number].rounded(*value) } else { 0. }
        };
        pairs.map(own).collect()
    }
}
