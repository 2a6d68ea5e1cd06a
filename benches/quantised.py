"""Quantised models of the families that quantisers write, with ONNX Runtime's quantiser, to check and to measure.

    python -m venv quantised && quantised/bin/pip install numpy onnx onnxruntime
    quantised/bin/python benches/quantised.py FORM MODEL.onnx QUANTISED.onnx

FORM is qdq (bytes between QuantizeLinear and DequantizeLinear, unsigned activations), signed (the same with signed ones), linear
(QLinearConv and its kind) or dynamic (weights only; activations as the model runs). Weights are signed, each output channel with a
scale of its own in qdq and signed. Ranges come from four random inputs: the numbers mean nothing, their cost does.
"""

import os, sys, tempfile

import numpy
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

SAMPLES = 4


class Samples(CalibrationDataReader):
    """Random inputs: floats from a normal distribution, integers from 0 to 99, axes without a size 1."""

    def __init__(self, model):
        ports = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).get_inputs()
        random = numpy.random.default_rng(0)
        self.samples = iter([{port.name: self.sample(port, random) for port in ports} for _ in range(SAMPLES)])

    @staticmethod
    def sample(port, random):
        shape = [size if isinstance(size, int) else 1 for size in port.shape]
        if "float" in port.type:
            return random.standard_normal(shape).astype(numpy.float32)
        return random.integers(0, 100, shape).astype(numpy.int64)

    def get_next(self):
        return next(self.samples, None)


def main():
    if len(sys.argv) != 4 or sys.argv[1] not in ("qdq", "signed", "linear", "dynamic"):
        sys.exit(__doc__)
    form, source, target = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        prepared = os.path.join(folder, "prepared.onnx")
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        write(form, prepared, target)


def write(form, prepared, target):
    if form == "dynamic":
        quantize_dynamic(prepared, target, weight_type=QuantType.QInt8)
    else:
        quantize_static(
            prepared,
            target,
            Samples(prepared),
            quant_format=QuantFormat.QOperator if form == "linear" else QuantFormat.QDQ,
            per_channel=form != "linear",
            activation_type=QuantType.QInt8 if form == "signed" else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


if __name__ == "__main__":
    main()
