"""Strang beside ONNX Runtime and OpenVINO on the same machine, in turn, so that ratios hold where times do not.

    python -m venv peers && peers/bin/pip install numpy onnx onnxruntime openvino
    cargo build --release
    peers/bin/python benches/peers.py MODEL.onnx... [--threads 1,2] [--rounds 3] [--program target/release/strang]

Inputs are random and the same for all: floats from a normal distribution, integers from 0 to 99, axes without a size 1.
Every measurement is a process of its own, pinned to as many processors as it has threads. Each round runs every program
once; a time is the median over rounds of the medians over runs, a ratio the median over rounds of Strang's time by that of
the better peer. A peer that does not run a model has no time.
"""

import argparse, json, math, os, statistics, subprocess, sys, tempfile, time

import numpy

SECONDS = 2
LEAST_RUNS = 20


def make_inputs(model, folder):
    """Writes input_K.npy for every input of a model."""
    import onnx

    kinds = onnx.TensorProto
    graph = onnx.load(model, load_external_data=False).graph
    given = {tensor.name for tensor in graph.initializer}
    random = numpy.random.default_rng(0)
    for number, port in enumerate(port for port in graph.input if port.name not in given):
        shape = [axis.dim_value or 1 for axis in port.type.tensor_type.shape.dim]
        element = onnx.helper.tensor_dtype_to_np_dtype(port.type.tensor_type.elem_type)
        whole = port.type.tensor_type.elem_type in (kinds.INT64, kinds.INT32, kinds.UINT8, kinds.INT8)
        values = random.integers(0, 100, shape) if whole else random.standard_normal(shape)
        numpy.save(os.path.join(folder, f"input_{number}.npy"), values.astype(element))


def read_inputs(folder):
    count = len([name for name in os.listdir(folder) if name.startswith("input_")])
    return [numpy.load(os.path.join(folder, f"input_{number}.npy")) for number in range(count)]


def median_ms(run):
    """The median time of a call, after a warm-up."""
    for _ in range(3):
        run()
    times, start = [], time.perf_counter()
    while len(times) < LEAST_RUNS or time.perf_counter() - start < SECONDS:
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    return 1e3 * statistics.median(times)


def onnxruntime(model, inputs, threads):
    import onnxruntime as peer

    options = peer.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = peer.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {port.name: value for port, value in zip(session.get_inputs(), inputs)}
    return median_ms(lambda: session.run(None, feed))


def openvino(model, inputs, threads):
    import openvino as peer

    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = peer.Core().compile_model(model, "CPU", settings).create_infer_request()
    return median_ms(lambda: request.infer(inputs))


PEERS = {"onnxruntime": onnxruntime, "openvino": openvino}


def strang(program, model, folder, threads):
    command = [program, "bench", model, "--inputs", folder, "--threads", str(threads), "--json"]
    return pinned(command, threads)["median_ms"]


def pinned(command, threads):
    """The JSON that a command prints, run on the first processors."""
    processors = sorted(os.sched_getaffinity(0))[:threads]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, processors))
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def peer(name, model, folder, threads):
    command = [sys.executable, __file__, model, "--one", f"{name},{folder},{threads}"]
    try:
        return pinned(command, threads)["median_ms"]
    except RuntimeError as error:
        print(f"{name} does not run {model}: {str(error).splitlines()[-1]}", file=sys.stderr)
        return math.inf


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--program", default="target/release/strang")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, folder, threads = options.one.split(",")
        print(json.dumps({"median_ms": PEERS[name](options.models[0], read_inputs(folder), int(threads))}))
        return
    print("| model | threads | strang ms | " + " | ".join(f"{name} ms" for name in PEERS) + " | ratio to the better |")
    print("|---|---|---|" + "---|" * len(PEERS) + "---|")
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            make_inputs(model, folder)
            for threads in map(int, options.threads.split(",")):
                rounds = []
                for _ in range(options.rounds):
                    times = {"strang": strang(options.program, model, folder, threads)}
                    times |= {name: peer(name, model, folder, threads) for name in PEERS}
                    rounds.append(times)
                medians = [statistics.median(times[name] for times in rounds) for name in ["strang", *PEERS]]
                cells = [f"{median:.3f}" if math.isfinite(median) else "-" for median in medians]
                ratio = statistics.median(times["strang"] / min(times[name] for name in PEERS) for times in rounds)
                # Without any peer there is no ratio.
                cells.append(f"{ratio:.2f}" if ratio > 0 else "-")
                name = os.path.basename(model).removesuffix(".onnx")
                print(f"| {name} | {threads} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(str(error))
