//! The table of operators, and one importer for each.
//!
//! | module | operators |
//! |---|---|
//! | [`elementwise`] | arithmetic, comparisons, logic, activations, conversions |
//! | [`shape`], [`mod@slice`] | views: reshape, transpose, expand, concat, split, slice, pad |
//! | [`matmul`], [`convolution`] | contractions |
//! | [`pooling`], [`reduce`], [`norm`] | reductions, softmax, normalisations, prefix folds, top-k |
//! | [`gather`], [`selection`] | reads and writes at positions that come from data; results as long as the data say |
//! | [`create`] | constants, shapes, ranges |
//! | [`recurrent`], [`control`] | LSTM, GRU, RNN; If, Loop, Scan |
//! | [`quantise`] | quantised operators |
//! | `extensions`, `few_bits` | those of ONNX Runtime; products with weights of few bits |
//! | [`attention`], [`recurrence`] | attention with caches; linear attention, causal convolution |
//! | [`resize`], [`sample`] | resizing of images; reads between elements: grids, regions, deformed convolution |
//! | [`signal`], [`linear_algebra`] | Fourier transforms, windows, filters; determinants, columns to images |
//! | [`loss`], [`training`], [`learning`] | losses; optimisers; classical machine learning |

pub mod attention;
pub mod control;
pub mod convolution;
pub mod create;
mod einsum;
pub mod elementwise;
mod extensions;
mod few_bits;
pub mod gather;
pub mod learning;
pub mod linear_algebra;
pub mod loss;
pub mod matmul;
pub mod norm;
pub mod pooling;
pub mod quantise;
pub mod recurrence;
pub mod recurrent;
pub mod reduce;
pub mod resize;
pub mod sample;
pub mod scalar;
pub mod selection;
pub mod shape;
pub mod signal;
pub mod slice;
pub mod training;
pub mod window;

use super::{
    call::{Call, Imported},
    error::ImportError,
    model::Importer,
    proto::NodeProto,
};

/// Imports one application of an operator.
pub type Import = fn(&mut Call) -> Imported;

/// An operator of the default domain.
pub struct Operator {
    /// Its name.
    pub name: &'static str,
    /// The opsets in which it appeared or changed, ascending.
    pub versions: &'static [i64],
    /// Its importer, for all of them.
    pub import: Import,
}

/// Every operator that is known, by name.
pub const OPERATORS: &[Operator] = &[
    Operator { name: "Abs", versions: &[1, 6, 13], import: elementwise::unary },
    Operator { name: "Acos", versions: &[7, 22], import: elementwise::unary },
    Operator { name: "Acosh", versions: &[9, 22], import: elementwise::unary },
    Operator { name: "Add", versions: &[1, 6, 7, 13, 14], import: elementwise::binary },
    Operator { name: "AffineGrid", versions: &[20], import: sample::affine_grid },
    Operator { name: "And", versions: &[1, 7], import: elementwise::binary },
    Operator { name: "ArgMax", versions: &[1, 11, 12, 13], import: reduce::arg_reduce },
    Operator { name: "ArgMin", versions: &[1, 11, 12, 13], import: reduce::arg_reduce },
    Operator { name: "Asin", versions: &[7, 22], import: elementwise::unary },
    Operator { name: "Asinh", versions: &[9, 22], import: elementwise::unary },
    Operator { name: "Atan", versions: &[7, 22], import: elementwise::unary },
    Operator { name: "Atanh", versions: &[9, 22], import: elementwise::unary },
    Operator { name: "Attention", versions: &[23, 24, 25], import: attention::attention },
    Operator { name: "AveragePool", versions: &[1, 7, 10, 11, 19, 22], import: pooling::pool },
    Operator { name: "BatchNormalization", versions: &[1, 6, 7, 9, 14, 15], import: norm::batch },
    Operator { name: "Bernoulli", versions: &[15, 22], import: create::refused },
    Operator { name: "BitCast", versions: &[26], import: quantise::reinterpret },
    Operator { name: "BitShift", versions: &[11, 28], import: elementwise::binary },
    Operator { name: "BitwiseAnd", versions: &[18], import: elementwise::binary },
    Operator { name: "BitwiseNot", versions: &[18], import: elementwise::unary },
    Operator { name: "BitwiseOr", versions: &[18], import: elementwise::binary },
    Operator { name: "BitwiseXor", versions: &[18], import: elementwise::binary },
    Operator { name: "BlackmanWindow", versions: &[17], import: signal::window },
    Operator { name: "Cast", versions: &[1, 6, 9, 13, 19, 21, 23, 24, 25, 28], import: elementwise::convert },
    Operator { name: "CastLike", versions: &[15, 19, 21, 23, 24, 25], import: elementwise::convert },
    Operator { name: "CausalConvWithState", versions: &[27], import: recurrence::causal_convolution },
    Operator { name: "Ceil", versions: &[1, 6, 13], import: elementwise::unary },
    Operator { name: "Celu", versions: &[12, 28], import: elementwise::activation },
    Operator { name: "CenterCropPad", versions: &[18], import: slice::center_crop_pad },
    Operator { name: "Clip", versions: &[1, 6, 11, 12, 13], import: elementwise::clip },
    Operator { name: "Col2Im", versions: &[18], import: linear_algebra::columns_to_image },
    Operator { name: "Compress", versions: &[9, 11, 28], import: selection::compress },
    Operator { name: "Concat", versions: &[1, 4, 11, 13], import: shape::concat },
    Operator { name: "Constant", versions: &[1, 9, 11, 12, 13, 19, 21, 23, 24, 25], import: create::constant },
    Operator { name: "ConstantOfShape", versions: &[9, 20, 21, 23, 24, 25], import: create::constant_of_shape },
    Operator { name: "Conv", versions: &[1, 11, 22], import: convolution::convolution },
    Operator { name: "ConvInteger", versions: &[10], import: quantise::convolution_integer },
    Operator { name: "ConvTranspose", versions: &[1, 11, 22], import: convolution::transposed },
    Operator { name: "Cos", versions: &[7, 22], import: elementwise::unary },
    Operator { name: "Cosh", versions: &[9, 22], import: elementwise::unary },
    Operator { name: "CumProd", versions: &[26], import: reduce::cumulative },
    Operator { name: "CumSum", versions: &[11, 14], import: reduce::cumulative },
    Operator { name: "DFT", versions: &[17, 20], import: signal::dft },
    Operator { name: "DeformConv", versions: &[19, 22], import: sample::deformable },
    Operator { name: "DepthToSpace", versions: &[1, 11, 13, 28], import: shape::depth_to_space },
    Operator { name: "DequantizeLinear", versions: &[10, 13, 19, 21, 23, 24, 25, 28], import: quantise::dequantise },
    Operator { name: "Det", versions: &[11, 22], import: linear_algebra::determinant },
    Operator { name: "Div", versions: &[1, 6, 7, 13, 14], import: elementwise::binary },
    Operator { name: "Dropout", versions: &[1, 6, 7, 10, 12, 13, 22], import: elementwise::dropout },
    Operator { name: "DynamicQuantizeLinear", versions: &[11], import: quantise::quantise_dynamically },
    Operator { name: "Einsum", versions: &[12, 28], import: einsum::einsum },
    Operator { name: "Elu", versions: &[1, 6, 22], import: elementwise::activation },
    Operator { name: "Equal", versions: &[1, 7, 11, 13, 19], import: elementwise::binary },
    Operator { name: "Erf", versions: &[9, 13], import: elementwise::unary },
    Operator { name: "Exp", versions: &[1, 6, 13], import: elementwise::unary },
    Operator { name: "Expand", versions: &[8, 13], import: shape::expand },
    Operator { name: "EyeLike", versions: &[9, 22], import: create::eye_like },
    Operator { name: "Flatten", versions: &[1, 9, 11, 13, 21, 23, 24, 25], import: shape::flatten },
    Operator { name: "Floor", versions: &[1, 6, 13], import: elementwise::unary },
    Operator { name: "GRU", versions: &[1, 3, 7, 14, 22], import: recurrent::gru },
    Operator { name: "Gather", versions: &[1, 11, 13], import: gather::gather },
    Operator { name: "GatherElements", versions: &[11, 13], import: gather::gather_elements },
    Operator { name: "GatherND", versions: &[11, 12, 13], import: gather::gather_nd },
    Operator { name: "Gelu", versions: &[20], import: elementwise::activation },
    Operator { name: "Gemm", versions: &[1, 6, 7, 9, 11, 13], import: matmul::gemm },
    Operator { name: "GlobalAveragePool", versions: &[1, 22], import: pooling::global },
    Operator { name: "GlobalLpPool", versions: &[1, 2, 22], import: pooling::global },
    Operator { name: "GlobalMaxPool", versions: &[1, 22], import: pooling::global },
    Operator { name: "Greater", versions: &[1, 7, 9, 13], import: elementwise::binary },
    Operator { name: "GreaterOrEqual", versions: &[12, 16], import: elementwise::binary },
    Operator { name: "GridSample", versions: &[16, 20, 22], import: sample::grid_sample },
    Operator { name: "GroupNormalization", versions: &[18, 21], import: norm::group },
    Operator { name: "HammingWindow", versions: &[17], import: signal::window },
    Operator { name: "HannWindow", versions: &[17], import: signal::window },
    Operator { name: "HardSigmoid", versions: &[1, 6, 22], import: elementwise::activation },
    Operator { name: "HardSwish", versions: &[14, 22], import: elementwise::unary },
    Operator { name: "Hardmax", versions: &[1, 11, 13], import: reduce::hardmax },
    Operator { name: "Identity", versions: &[1, 13, 14, 16, 19, 21, 23, 24, 25], import: elementwise::identity },
    Operator { name: "If", versions: &[1, 11, 13, 16, 19, 21, 23, 24, 25], import: control::branch },
    Operator { name: "InstanceNormalization", versions: &[1, 6, 22], import: norm::instance },
    Operator { name: "IsInf", versions: &[10, 20], import: elementwise::is_infinite },
    Operator { name: "IsNaN", versions: &[9, 13, 20], import: elementwise::unary },
    Operator { name: "LRN", versions: &[1, 13], import: norm::local_response },
    Operator { name: "LSTM", versions: &[1, 7, 14, 22], import: recurrent::lstm },
    Operator { name: "LayerNormalization", versions: &[17], import: norm::layer },
    Operator { name: "LeakyRelu", versions: &[1, 6, 16], import: elementwise::activation },
    Operator { name: "Less", versions: &[1, 7, 9, 13], import: elementwise::binary },
    Operator { name: "LessOrEqual", versions: &[12, 16], import: elementwise::binary },
    Operator { name: "LinearAttention", versions: &[27], import: recurrence::linear_attention },
    Operator { name: "Log", versions: &[1, 6, 13], import: elementwise::unary },
    Operator { name: "LogSoftmax", versions: &[1, 11, 13], import: reduce::softmax },
    Operator { name: "Loop", versions: &[1, 11, 13, 16, 19, 21, 23, 24, 25], import: control::repeat },
    Operator { name: "LpNormalization", versions: &[1, 22], import: pooling::lp_normalization },
    Operator { name: "LpPool", versions: &[1, 2, 11, 18, 22], import: pooling::pool },
    Operator { name: "MatMul", versions: &[1, 9, 13], import: matmul::matmul },
    Operator { name: "MatMulInteger", versions: &[10], import: quantise::matmul_integer },
    Operator { name: "Max", versions: &[1, 6, 8, 12, 13], import: elementwise::variadic },
    Operator { name: "MaxPool", versions: &[1, 8, 10, 11, 12, 22], import: pooling::pool },
    Operator { name: "MaxUnpool", versions: &[9, 11, 22], import: pooling::unpool },
    Operator { name: "Mean", versions: &[1, 6, 8, 13], import: elementwise::variadic },
    Operator { name: "MeanVarianceNormalization", versions: &[9, 13], import: norm::mean_variance },
    Operator { name: "MelWeightMatrix", versions: &[17], import: signal::mel_weights },
    Operator { name: "Min", versions: &[1, 6, 8, 12, 13], import: elementwise::variadic },
    Operator { name: "Mish", versions: &[18, 22], import: elementwise::unary },
    Operator { name: "Mod", versions: &[10, 13, 28], import: elementwise::binary },
    Operator { name: "Mul", versions: &[1, 6, 7, 13, 14], import: elementwise::binary },
    Operator { name: "Multinomial", versions: &[7, 22], import: create::refused },
    Operator { name: "Neg", versions: &[1, 6, 13], import: elementwise::unary },
    Operator { name: "NegativeLogLikelihoodLoss", versions: &[12, 13, 22], import: loss::negative_log_likelihood },
    Operator { name: "NonMaxSuppression", versions: &[10, 11], import: selection::suppress },
    Operator { name: "NonZero", versions: &[9, 13], import: selection::non_zero },
    Operator { name: "Not", versions: &[1], import: elementwise::unary },
    Operator { name: "OneHot", versions: &[9, 11, 28], import: reduce::one_hot },
    Operator { name: "Or", versions: &[1, 7], import: elementwise::binary },
    Operator { name: "PRelu", versions: &[1, 6, 7, 9, 16], import: elementwise::activation },
    Operator { name: "Pad", versions: &[1, 2, 11, 13, 18, 19, 21, 23, 24, 25], import: slice::pad },
    Operator { name: "Pow", versions: &[1, 7, 12, 13, 15], import: elementwise::power },
    Operator { name: "QLinearConv", versions: &[10], import: quantise::quantised_convolution },
    Operator { name: "QLinearMatMul", versions: &[10, 21], import: quantise::quantised_matmul },
    Operator { name: "QuantizeLinear", versions: &[10, 13, 19, 21, 23, 24, 25, 28], import: quantise::quantise },
    Operator { name: "RMSNormalization", versions: &[23], import: norm::rms },
    Operator { name: "RNN", versions: &[1, 7, 14, 22], import: recurrent::rnn },
    Operator { name: "RandomNormal", versions: &[1, 22], import: create::refused },
    Operator { name: "RandomNormalLike", versions: &[1, 22], import: create::refused },
    Operator { name: "RandomUniform", versions: &[1, 22], import: create::refused },
    Operator { name: "RandomUniformLike", versions: &[1, 22], import: create::refused },
    Operator { name: "Range", versions: &[11, 27], import: create::range },
    Operator { name: "Reciprocal", versions: &[1, 6, 13], import: elementwise::unary },
    Operator { name: "ReduceL1", versions: &[1, 11, 13, 18], import: reduce::reduce },
    Operator { name: "ReduceL2", versions: &[1, 11, 13, 18], import: reduce::reduce },
    Operator { name: "ReduceLogSum", versions: &[1, 11, 13, 18, 28], import: reduce::reduce },
    Operator { name: "ReduceLogSumExp", versions: &[1, 11, 13, 18, 28], import: reduce::reduce },
    Operator { name: "ReduceMax", versions: &[1, 11, 12, 13, 18, 20], import: reduce::reduce },
    Operator { name: "ReduceMean", versions: &[1, 11, 13, 18], import: reduce::reduce },
    Operator { name: "ReduceMin", versions: &[1, 11, 12, 13, 18, 20], import: reduce::reduce },
    Operator { name: "ReduceProd", versions: &[1, 11, 13, 18], import: reduce::reduce },
    Operator { name: "ReduceSum", versions: &[1, 11, 13], import: reduce::reduce },
    Operator { name: "ReduceSumSquare", versions: &[1, 11, 13, 18], import: reduce::reduce },
    Operator { name: "Relu", versions: &[1, 6, 13, 14], import: elementwise::unary },
    Operator { name: "Reshape", versions: &[1, 5, 13, 14, 19, 21, 23, 24, 25], import: shape::reshape },
    Operator { name: "Resize", versions: &[10, 11, 13, 18, 19], import: resize::resize },
    Operator { name: "ReverseSequence", versions: &[10, 28], import: gather::reverse_sequence },
    Operator { name: "RoiAlign", versions: &[10, 16, 22], import: sample::roi_align },
    Operator { name: "RotaryEmbedding", versions: &[23], import: attention::rotary },
    Operator { name: "Round", versions: &[11, 22], import: elementwise::unary },
    Operator { name: "STFT", versions: &[17], import: signal::stft },
    Operator { name: "Scan", versions: &[8, 9, 11, 16, 19, 21, 23, 24, 25], import: control::scanned },
    Operator { name: "Scatter", versions: &[9, 11], import: gather::scatter_elements },
    Operator { name: "ScatterElements", versions: &[11, 13, 16, 18], import: gather::scatter_elements },
    Operator { name: "ScatterND", versions: &[11, 13, 16, 18], import: gather::scatter_nd },
    Operator { name: "Selu", versions: &[1, 6, 22], import: elementwise::activation },
    Operator { name: "Shape", versions: &[1, 13, 15, 19, 21, 23, 24, 25], import: create::shape },
    Operator { name: "Shrink", versions: &[9], import: elementwise::activation },
    Operator { name: "Sigmoid", versions: &[1, 6, 13], import: elementwise::unary },
    Operator { name: "Sign", versions: &[9, 13], import: elementwise::unary },
    Operator { name: "Sin", versions: &[7, 22], import: elementwise::unary },
    Operator { name: "Sinh", versions: &[9, 22], import: elementwise::unary },
    Operator { name: "Size", versions: &[1, 13, 19, 21, 23, 24, 25], import: create::count },
    Operator { name: "Slice", versions: &[1, 10, 11, 13], import: slice::slice },
    Operator { name: "Softmax", versions: &[1, 11, 13], import: reduce::softmax },
    Operator { name: "SoftmaxCrossEntropyLoss", versions: &[12, 13], import: loss::cross_entropy },
    Operator { name: "Softplus", versions: &[1, 22], import: elementwise::unary },
    Operator { name: "Softsign", versions: &[1, 22], import: elementwise::activation },
    Operator { name: "SpaceToDepth", versions: &[1, 13, 28], import: shape::space_to_depth },
    Operator { name: "Split", versions: &[1, 2, 11, 13, 18], import: shape::split },
    Operator { name: "Sqrt", versions: &[1, 6, 13], import: elementwise::unary },
    Operator { name: "Squeeze", versions: &[1, 11, 13, 21, 23, 24, 25], import: shape::squeeze },
    Operator { name: "Sub", versions: &[1, 6, 7, 13, 14], import: elementwise::binary },
    Operator { name: "Sum", versions: &[1, 6, 8, 13], import: elementwise::variadic },
    Operator { name: "SwiGLU", versions: &[28], import: elementwise::activation },
    Operator { name: "Swish", versions: &[24], import: elementwise::activation },
    Operator { name: "Tan", versions: &[7, 22], import: elementwise::unary },
    Operator { name: "Tanh", versions: &[1, 6, 13], import: elementwise::unary },
    Operator { name: "TensorScatter", versions: &[24], import: attention::cache_update },
    Operator { name: "ThresholdedRelu", versions: &[10, 22], import: elementwise::activation },
    Operator { name: "Tile", versions: &[1, 6, 13], import: shape::tile },
    Operator { name: "TopK", versions: &[1, 10, 11, 24], import: reduce::top_k },
    Operator { name: "Transpose", versions: &[1, 13, 21, 23, 24, 25], import: shape::transpose },
    Operator { name: "Trilu", versions: &[14], import: create::triangle },
    Operator { name: "Unique", versions: &[11, 28], import: selection::unique },
    Operator { name: "Unsqueeze", versions: &[1, 11, 13, 21, 23, 24, 25], import: shape::unsqueeze },
    Operator { name: "Upsample", versions: &[1, 7, 9, 10], import: resize::upsample },
    Operator { name: "Where", versions: &[9, 16], import: elementwise::choose },
    Operator { name: "Xor", versions: &[1, 7], import: elementwise::binary },
];

/// The importer of a node's operator, and the version of the operator that the model means.
///
/// # Errors
/// An operator that is not known, or did not exist yet in the model's opset.
pub fn find(node: &NodeProto, importer: &Importer) -> Result<(i64, Import), ImportError> {
    let default = node.domain.is_empty() || node.domain == "ai.onnx";
    let opset = if default { importer.opset } else { importer.domains.get(&*node.domain).copied().unwrap_or(0) };
    let refused = |reason: String| ImportError::Operator {
        place: importer.origin.place.clone(),
        domain: if default { String::new() } else { format!("{}.", node.domain) },
        version: opset,
        reason,
    };
    if opset == 0 && !importer.domains.contains_key(&*node.domain) {
        return Err(refused("the model does not import a version of its domain".into()));
    }
    let table = match &*node.domain {
        "" | "ai.onnx" => OPERATORS,
        "ai.onnx.ml" => learning::OPERATORS,
        "ai.onnx.preview" => attention::PREVIEW_OPERATORS,
        "ai.onnx.preview.training" => training::OPERATORS,
        "com.microsoft" => extensions::OPERATORS,
        _ => return Err(refused("the model does not define it as a function, and its domain is not known".into())),
    };
    let found = table.binary_search_by(|operator| operator.name.cmp(&node.op_type));
    let operator = found.map(|position| &table[position]);
    let unknown = match &*node.domain {
        "com.microsoft" => {
            "it is an extension of ONNX Runtime; export the model without that runtime's own optimisations"
        }
        _ => "there is no circuit for it",
    };
    let operator = operator.map_err(|_| refused(unknown.into()))?;
    let version = operator.versions.iter().rev().find(|version| **version <= opset);
    let version = version.ok_or_else(|| refused(format!("it first appeared in opset {}", operator.versions[0])))?;
    Ok((*version, operator.import))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(OPERATORS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(extensions::OPERATORS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(OPERATORS.iter().all(|operator| operator.versions.windows(2).all(|pair| pair[0] < pair[1])));
    }
}
