"""Trains the digit classifier of this folder and writes what the example needs.

The model is a Macaron vision transformer: an 8x8 image becomes sixteen 2x2
patches, and every layer is attention between two half steps of feed-forward
(Lu et al. 2019, "Understanding and Improving Transformer From a Multi-Particle
Dynamic System Point of View": Strang-Marchuk splitting):

    x = x + 1/2 F_a(LN x)
    x = x +     A(LN x)
    x = x + 1/2 F_c(LN x)

Data are the handwritten digits that scikit-learn carries. 360 of the 1,797
images are held out (stratified, fixed seed) and seen only once, at the end.

Writes digits.onnx, inputs/input_0.npy and labels.npy beside this file.
"""

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
SEED = 20261123
WIDTH, HEADS, HIDDEN, LAYERS, PATCH = 64, 4, 128, 3, 2
CLASSES, SIDE = 10, 8
EPOCHS, BATCH, PEAK_RATE = 240, 64, 2e-3
HELD_OUT = 360
OPSET = 18


class FeedForward(nn.Module):
    """Linear, GELU, linear: the F of a layer, acting on each patch alone."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.expand = nn.Linear(WIDTH, HIDDEN)
        self.contract = nn.Linear(HIDDEN, WIDTH)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        return self.contract(self.dropout(functional.gelu(self.expand(self.norm(x)))))


class Attention(nn.Module):
    """Multi-head self-attention: the A of a layer, in pieces so that each is an operator of its own."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        batch, patches, _ = x.shape
        y = self.norm(x)

        def heads(projected):
            return projected.view(batch, patches, HEADS, WIDTH // HEADS).transpose(1, 2)

        q, k, v = heads(self.query(y)), heads(self.key(y)), heads(self.value(y))
        scores = q @ k.transpose(-2, -1) / math.sqrt(WIDTH // HEADS)
        mixed = self.dropout(scores.softmax(-1)) @ v
        return self.output(mixed.transpose(1, 2).reshape(batch, patches, WIDTH))


class MacaronLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.before = FeedForward()
        self.attention = Attention()
        self.after = FeedForward()

    def forward(self, x):
        x = x + 0.5 * self.before(x)
        x = x + self.attention(x)
        return x + 0.5 * self.after(x)


class Classifier(nn.Module):
    """Images [batch, 1, 8, 8] with values in [0, 1] to logits [batch, 10]."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, PATCH, stride=PATCH)
        self.position = nn.Parameter(0.02 * torch.randn(1, (SIDE // PATCH) ** 2, WIDTH))
        self.layers = nn.ModuleList(MacaronLayer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.classes = nn.Linear(WIDTH, CLASSES)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2) + self.position
        for layer in self.layers:
            x = layer(x)
        return self.classes(self.norm(x).mean(1))


def augment(images):
    """Turns, scales and shifts every image a little, as another hand would."""
    n = len(images)
    angle = (torch.rand(n) - 0.5) * 0.5  # up to 14 degrees either way
    scale = 1 + (torch.rand(n) - 0.5) * 0.3
    cos, sin = angle.cos() * scale, angle.sin() * scale
    shift = (torch.rand(n, 2) - 0.5) * 0.5  # up to one pixel; the image is 2 units wide
    theta = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], 1).view(n, 2, 3)
    grid = functional.affine_grid(theta, images.shape, align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def train(images, labels):
    torch.manual_seed(SEED)
    model = Classifier()
    # The average of the weights along the way generalises better than where it ends.
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)
    )
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.1)
    for epoch in range(EPOCHS):
        total = 0.0
        order = torch.randperm(len(images))
        for start in range(0, len(images) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            logits = model(augment(images[chosen]))
            loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            average.update_parameters(model)
            total += loss.item()
        if (epoch + 1) % 20 == 0:
            print(f"epoch {epoch + 1:3}: mean loss {total / (len(images) // BATCH):.4f}", flush=True)
    return average.module.eval()


def export(model, example):
    path = HERE / "digits.onnx"
    program = torch.onnx.export(
        model,
        (example,),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        dynamo=True,
    )
    proto = program.model_proto
    # The exporter notes which source file and line made each node: not part of the model.
    del proto.metadata_props[:], proto.graph.metadata_props[:]
    for item in [*proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info]:
        del item.metadata_props[:]
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    return path


def main():
    torch.set_num_threads(1)  # sums in one order: the same weights every time on one machine
    torch.use_deterministic_algorithms(True)
    data = load_digits()
    images = (data.images / 16).astype(np.float32)[:, None]
    labels = data.target.astype(np.int64)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=HELD_OUT, stratify=labels, random_state=SEED
    )
    model = train(torch.from_numpy(train_x), torch.from_numpy(train_y))
    path = export(model, torch.from_numpy(test_x[:2]))
    (HERE / "inputs").mkdir(exist_ok=True)
    np.save(HERE / "inputs" / "input_0.npy", np.ascontiguousarray(test_x))
    np.save(HERE / "labels.npy", test_y)

    with torch.no_grad():
        expected = model(torch.from_numpy(test_x)).numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {"images": test_x})
    for name, logits in [("torch", expected), ("ONNX Runtime", actual)]:
        right = int((logits.argmax(1) == test_y).sum())
        print(f"{name}: {right} of {len(test_y)} held-out images right ({100 * right / len(test_y):.2f} %)")
    print(f"largest difference of a logit: {np.abs(expected - actual).max():.2e}")
    print(f"parameters: {sum(p.numel() for p in model.parameters()):,}; file: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
