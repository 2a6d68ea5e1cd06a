//! Weights of few bits: plainly, and split into three clusters with a scale each (SplitQuant, Song and Lin 2025).
//!
//! | file | what |
//! |---|---|
//! | `cluster` | k-means of numbers |
//! | `codes` | numbers as codes with a scale and a zero point |
//! | `split` | a lower, a middle and an upper part, each with its own codes |
//! | `weights` | the weights and biases of a circuit, and their codes |
//! | `form` | what takes their place |

pub mod cluster;
pub mod codes;
mod form;
pub mod split;
mod weights;

pub use form::quantise;
pub(crate) use weights::weights as layer_weights;

/// How weights become codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// Bits of a code: 2, 3, 4 or 8.
    pub bits: u32,
    /// Whether codes lie around a zero point that is not 0.
    pub affine: bool,
    /// Which weights share a scale.
    pub granularity: Granularity,
    /// Whether weights are split into clusters first.
    pub splitting: Splitting,
}

/// Whether weights are split into clusters, whose codes are always affine, with an exact zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Splitting {
    /// They are not.
    Whole,
    /// They are; cluster and code of a weight are one index into a book.
    Joined,
    /// They are; a layer becomes three, one for each cluster, whose results add up.
    Layers,
}

/// Which weights share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// All of a layer.
    Tensor,
    /// Those of an output channel.
    Channel,
    /// So many of an output channel, in order of the sum.
    Group(usize),
}

/// What became of a layer's weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantised {
    /// The user's layer.
    pub layer: String,
    /// How many weights it has, its bias included.
    pub weights: usize,
    /// The bits that codes, clusters, scales and zero points take.
    pub bits: usize,
    /// The root mean square of the error relative to that of the weights, without the bias.
    pub error: f64,
}

/// Why weights are not quantised.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantiseError {
    /// No codes have so many bits.
    #[error("codes of {0} bits; 2, 3, 4 and 8 are known")]
    Bits(u32),
    /// A group of no weights.
    #[error("groups of 0 weights; 1 or more are meant, 32 to 128 are usual")]
    Group,
    /// A weight is no number.
    #[error("{layer}: a weight is infinite or not a number, and has no code")]
    NotFinite {
        /// The user's layer.
        layer: String,
    },
}
