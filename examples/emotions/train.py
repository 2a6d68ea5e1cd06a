"""Trains the text classifier of this folder and writes what the example needs.

The model has the shape of BERT-Tiny: 2 layers, 128 wide, 2 heads, 512 hidden units, layer normalisation after each
residual, and a pooler over the first token. It says which of six emotions the one who speaks feels now.

Sentences are made by a grammar. Exactly one clause tells what the speaker feels; others tell what other people feel, what
the speaker felt once or does not feel, or nothing of the kind, so that words alone do not decide. 2,000 sentences are held
out: none of them is trained on, and they are seen only once, at the end.

Writes emotions.onnx, inputs/input_0.npy and labels.npy beside this file.
"""

import math
import random
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
SEED = 20261128
WIDTH, HEADS, HIDDEN, LAYERS, LENGTH = 128, 2, 512, 2, 32
TRAINED, HELD_OUT = 24_000, 2_000
EPOCHS, BATCH, PEAK_RATE = 12, 64, 1e-3
OPSET = 18

EMOTIONS = {
    "joy": "happy glad cheerful delighted merry pleased content thrilled joyful amused".split(),
    "sadness": "sad gloomy miserable unhappy heartbroken lonely hopeless tearful downcast grieving".split(),
    "anger": "angry furious annoyed bitter outraged irritated hostile mad resentful cross".split(),
    "fear": "afraid scared anxious nervous terrified worried alarmed uneasy frightened shaky".split(),
    "love": "loving tender fond devoted affectionate adoring caring smitten warm passionate".split(),
    "surprise": "surprised amazed astonished stunned startled shocked dazed speechless puzzled curious".split(),
}
PEOPLE = "brother sister mother father friend neighbour teacher boss cousin doctor".split()
THINGS = "train garden letter kitchen window river market bridge film song".split()
LOOKS = "old green quiet large late broken bright empty new slow".split()
SPEAKER = ["i feel {}", "i am so {}", "right now i am {}", "it left me {}", "these days i feel rather {}", "i am {} again"]
OTHERS = ["my {p} is {}", "my {p} looks {}", "the {p} told me to be {}", "i met a {} {p}", "my {p} feels so {} right now"]
NOT_NOW = ["i used to be {}", "yesterday i was {}", "i am not {}", "i never feel {}", "i am no longer {}", "once i felt {}"]
NEUTRAL = ["the {t} was {l}", "we walked to the {l} {t}", "my {p} saw the {t}", "i found a {l} {t}"]
JOINTS = ["and", "but", "while", "because", ",", "."]


def words():
    texts = SPEAKER + OTHERS + NOT_NOW + NEUTRAL + JOINTS + PEOPLE + THINGS + LOOKS + sum(EMOTIONS.values(), [])
    found = sorted({word for text in texts for word in text.split() if "{" not in word})
    return {word: number for number, word in enumerate(["[PAD]", "[CLS]", *found])}


def sentence(source):
    """A sentence as words, and the number of the emotion that its speaker feels."""

    def clause(forms, emotion=None):
        word = source.choice(EMOTIONS[emotion]) if emotion else ""
        return source.choice(forms).format(word, p=source.choice(PEOPLE), t=source.choice(THINGS), l=source.choice(LOOKS))

    label = source.randrange(len(EMOTIONS))
    clauses = [clause(SPEAKER, list(EMOTIONS)[label])]
    for _ in range(source.randint(1, 3)):
        kind = source.choice([OTHERS, NOT_NOW, NEUTRAL])
        clauses.append(clause(kind, None if kind is NEUTRAL else source.choice(list(EMOTIONS))))
    source.shuffle(clauses)
    text = clauses[0]
    for other in clauses[1:]:
        text += f" {source.choice(JOINTS)} {other}"
    return text.split(), label


def data():
    numbers, source, seen, tokens, labels = words(), random.Random(SEED), set(), [], []
    while len(tokens) < TRAINED + HELD_OUT:
        text, label = sentence(source)
        if tuple(text) in seen or len(text) >= LENGTH:
            continue
        seen.add(tuple(text))
        ids = [numbers["[CLS]"], *(numbers[word] for word in text)]
        tokens.append(ids + [numbers["[PAD]"]] * (LENGTH - len(ids)))
        labels.append(label)
    return torch.tensor(tokens), torch.tensor(labels), len(numbers)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.expand, self.contract = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.norm_attention, self.norm_output = nn.LayerNorm(WIDTH, eps=1e-12), nn.LayerNorm(WIDTH, eps=1e-12)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x, mask):
        batch, length, _ = x.shape

        def heads(projected):
            return projected.view(batch, length, HEADS, WIDTH // HEADS).transpose(1, 2)

        q, k, v = heads(self.query(x)), heads(self.key(x)), heads(self.value(x))
        scores = q @ k.transpose(-2, -1) / math.sqrt(WIDTH // HEADS) + mask
        mixed = (self.dropout(scores.softmax(-1)) @ v).transpose(1, 2).reshape(batch, length, WIDTH)
        x = self.norm_attention(x + self.dropout(self.output(mixed)))
        return self.norm_output(x + self.dropout(self.contract(functional.gelu(self.expand(x)))))


class Classifier(nn.Module):
    """Tokens [batch, 32] to logits [batch, 6]."""

    def __init__(self, vocabulary):
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.pooler, self.classes = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, len(EMOTIONS))
        self.dropout = nn.Dropout(0.1)

    def forward(self, tokens):
        mask = (tokens == 0)[:, None, None].float() * -10000.0
        x = self.dropout(self.norm(self.words(tokens) + self.places.weight))
        for layer in self.layers:
            x = layer(x, mask)
        return self.classes(torch.tanh(self.pooler(x[:, 0])))


def train(tokens, labels, vocabulary):
    torch.manual_seed(SEED)
    model = Classifier(vocabulary)
    steps = EPOCHS * (len(tokens) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.1)
    for epoch in range(EPOCHS):
        total = 0.0
        order = torch.randperm(len(tokens))
        for start in range(0, len(tokens) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            loss = functional.cross_entropy(model(tokens[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1:2}: mean loss {total / (len(tokens) // BATCH):.4f}", flush=True)
    return model.eval()


def export(model, example):
    path = HERE / "emotions.onnx"
    program = torch.onnx.export(
        model,
        (example,),
        input_names=["tokens"],
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
    tokens, labels, vocabulary = data()
    model = train(tokens[:TRAINED], labels[:TRAINED], vocabulary)
    held_out, expected = tokens[TRAINED:], labels[TRAINED:].numpy()
    path = export(model, held_out[:2])
    (HERE / "inputs").mkdir(exist_ok=True)
    np.save(HERE / "inputs" / "input_0.npy", held_out.numpy())
    np.save(HERE / "labels.npy", expected)

    with torch.no_grad():
        logits = model(held_out).numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (other,) = session.run(None, {"tokens": held_out.numpy()})
    for name, found in [("torch", logits), ("ONNX Runtime", other)]:
        right = int((found.argmax(1) == expected).sum())
        print(f"{name}: {right} of {len(expected)} held-out sentences right ({100 * right / len(expected):.2f} %)")
    print(f"parameters: {sum(p.numel() for p in model.parameters()):,}; file: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
