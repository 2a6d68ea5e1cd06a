"""Models of the families that Strang is for, with random weights, as ONNX files to measure and check.

    python -m venv families
    families/bin/pip install torch torchvision timm transformers onnx onnxscript
    families/bin/python benches/families.py FOLDER [NAME...]        (default: all)
    strang check FOLDER/NAME.onnx --random 0                        (compiled code against the interpreter)
    peers/bin/python benches/peers.py FOLDER/NAME.onnx              (see there)

Models that are small, odd or new enough to find what larger benchmarks do not. A name that ends in `+` is exported by the
newer exporter of PyTorch, which writes other graphs. Files that exist are left as they are.
"""

import os, sys

import torch
from torch import nn
from torch.nn import functional


def images(*names, size=224):
    """Models of torchvision."""
    import torchvision

    options = {"googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}}
    build = lambda name: getattr(torchvision.models, name)(weights=None, **options.get(name, {}))
    return {name: (lambda name=name: (build(name), (torch.randn(1, 3, size, size),))) for name in names}


def newer_images(*names, size=224):
    """Models of timm."""
    import timm

    build = lambda name: timm.create_model(name, pretrained=False)
    return {name: (lambda name=name: (build(name), (torch.randn(1, 3, size, size),))) for name in names}


class Called(nn.Module):
    """A model of transformers as a function of its arrays alone."""

    def __init__(self, model, names, options):
        super().__init__()
        self.model, self.names, self.options = model, names, options

    def forward(self, *arrays):
        return self.model(**dict(zip(self.names, arrays)), return_dict=False, **self.options)[0]


def called(kind, name, shape, **sizes):
    """A model of transformers over one array of numbers."""

    def build():
        import transformers

        config, model = (getattr(transformers, part) for part in kind.split("|"))
        return Called(model(config(attn_implementation="eager", **sizes)), [name], {}), (torch.randn(*shape),)

    return build


def transformer(kind, *, causal=False, length=64, **sizes):
    """A model of transformers over a sequence of words."""

    def build():
        import transformers

        config = getattr(transformers, kind[: kind.index("|")])(vocab_size=2000, attn_implementation="eager", **sizes)
        model = getattr(transformers, kind[kind.index("|") + 1 :])(config)
        words = torch.randint(0, 1000, (1, length))
        if causal:
            return Called(model, ["input_ids"], {"use_cache": False}), (words,)
        return Called(model, ["input_ids", "attention_mask"], {}), (words, torch.ones_like(words))

    return build


class Recurrent(nn.Module):
    """Layers of one kind, then a classifier of every step."""

    def __init__(self, kind, inputs, hidden, layers, both_ways):
        super().__init__()
        self.layers = getattr(nn, kind)(inputs, hidden, layers, batch_first=True, bidirectional=both_ways)
        self.last = nn.Linear(hidden * (2 if both_ways else 1), 40)

    def forward(self, x):
        return self.last(self.layers(x)[0])


class Unet(nn.Module):
    """Three levels down and up."""

    def __init__(self):
        super().__init__()

        def block(inputs, outputs):
            layer = lambda i, o: [nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
            return nn.Sequential(*layer(inputs, outputs), *layer(outputs, outputs))

        self.down = nn.ModuleList([block(3, 32), block(32, 64), block(64, 128)])
        self.middle = block(128, 256)
        self.wider = nn.ModuleList([nn.ConvTranspose2d(2 * c, c, 2, 2) for c in (128, 64, 32)])
        self.up = nn.ModuleList([block(2 * c, c) for c in (128, 64, 32)])
        self.last = nn.Conv2d(32, 5, 1)

    def forward(self, x):
        kept = []
        for block in self.down:
            x = block(x)
            kept.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.middle(x)
        for wider, block, beside in zip(self.wider, self.up, reversed(kept)):
            x = block(torch.cat([wider(x), beside], 1))
        return self.last(x)


class Graph(nn.Module):
    """Two layers of messages along edges, summed where they arrive."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(64, 128), nn.Linear(128, 128), nn.Linear(128, 7)

    def forward(self, x, edges):
        for layer in (self.first, self.second):
            sent = layer(x)[edges[0]]
            arrived = torch.zeros(x.shape[0], sent.shape[1])
            x = functional.relu(arrived.scatter_add(0, edges[1].unsqueeze(1).expand_as(sent), sent))
        return self.last(x)


class Recommendation(nn.Module):
    """Embedded categories, whose products with each other are features (DLRM)."""

    def __init__(self):
        super().__init__()
        self.embedded = nn.ModuleList([nn.Embedding(1000, 32) for _ in range(8)])
        self.dense = nn.Sequential(nn.Linear(13, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(32 + 36, 128), nn.ReLU(), nn.Linear(128, 1), nn.Sigmoid())

    def forward(self, dense, categories):
        rows = [self.dense(dense)] + [layer(categories[:, k]) for k, layer in enumerate(self.embedded)]
        rows = torch.stack(rows, 1)
        first, second = torch.tril_indices(9, 9, -1)
        return self.top(torch.cat([rows[:, 0], (rows @ rows.transpose(1, 2))[:, first, second]], 1))


def models():
    small = {"hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8}
    grouped = {**small, "intermediate_size": 1376, "num_key_value_heads": 2}
    speech = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
    edges = lambda: (Graph(), (torch.randn(500, 64), torch.randint(0, 500, (2, 3000))))
    recurrent = lambda *sizes, inputs=80, batch=1: lambda: (Recurrent(*sizes), (torch.randn(batch, 100, inputs),))
    return {
        **images("resnet18", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0", "shufflenet_v2_x1_0"),
        **images("squeezenet1_1", "densenet121", "vgg11", "convnext_tiny", "vit_b_32", "swin_t", "regnet_y_400mf"),
        **images("mnasnet1_0", "googlenet", "resnext50_32x4d"),
        **images("inception_v3", size=299),
        **newer_images("repvgg_a0", "ghostnet_100", "efficientformer_l1", "mixer_s32_224", "poolformer_s12"),
        **newer_images("levit_128s", "deit_tiny_patch16_224", "mobileone_s0", "tf_efficientnetv2_b0"),
        **newer_images("mobilevit_xxs", "edgenext_xx_small", size=256),
        **newer_images("rexnet_100", "pvt_v2_b0", "fastvit_t8", "xcit_nano_12_p16_224"),
        "segformer": called("SegformerConfig|SegformerForSemanticSegmentation", "pixel_values", (1, 3, 256, 256)),
        "wav2vec2": called("Wav2Vec2Config|Wav2Vec2Model", "input_values", (1, 16000), num_hidden_layers=3, **speech),
        "unet": lambda: (Unet(), (torch.randn(1, 3, 128, 128),)),
        "distilbert": transformer("DistilBertConfig|DistilBertModel"),
        "roberta": transformer("RobertaConfig|RobertaModel", num_hidden_layers=6),
        "electra": transformer("ElectraConfig|ElectraModel"),
        "t5_encoder": transformer("T5Config|T5EncoderModel"),
        "llama+": transformer("LlamaConfig|LlamaForCausalLM", causal=True, **grouped),
        "qwen2+": transformer("Qwen2Config|Qwen2ForCausalLM", causal=True, **grouped),
        "gemma2+": transformer("Gemma2Config|Gemma2ForCausalLM", causal=True, head_dim=64, **grouped),
        "phi+": transformer("PhiConfig|PhiForCausalLM", causal=True, intermediate_size=2048, **small),
        "gru": recurrent("GRU", 80, 256, 2, False),
        "gru+": recurrent("GRU", 80, 256, 2, False),
        "lstm_both_ways": recurrent("LSTM", 80, 256, 3, True),
        "lstm_batch": recurrent("LSTM", 128, 512, 1, False, inputs=128, batch=8),
        "graph": edges,
        "recommendation": lambda: (
            Recommendation(),
            (torch.randn(128, 13), torch.randint(0, 1000, (128, 8))),
        ),
    }


def export(build, path, newer):
    torch.manual_seed(0)
    model, arrays = build()
    model.eval()
    for layer in model.modules():
        # Statistics of a fresh batch normalisation are those of one that does nothing.
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.running_mean.normal_(0, 0.1), layer.running_var.uniform_(0.5, 1.5)
            layer.weight.data.uniform_(0.5, 1.5), layer.bias.data.normal_(0, 0.1)
    options = {"external_data": False} if newer else {}
    with torch.no_grad():
        torch.onnx.export(model, arrays, path + ".part", opset_version=18, dynamo=newer, **options)
    os.replace(path + ".part", path)


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    folder, every = sys.argv[1], models()
    names = sys.argv[2:] or list(every)
    unknown = [name for name in names if name not in every]
    if unknown:
        sys.exit(f"no model {', '.join(unknown)}; there are {', '.join(every)}")
    os.makedirs(folder, exist_ok=True)
    torch.backends.mha.set_fastpath_enabled(False)
    failed = 0
    for name in names:
        path = os.path.join(folder, name + ".onnx")
        if os.path.exists(path):
            continue
        try:
            export(every[name], path, name.endswith("+"))
            print(path, flush=True)
        except Exception as error:  # One model that this version of a library cannot export is no reason to stop.
            failed += 1
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
