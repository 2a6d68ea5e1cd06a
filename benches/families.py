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


def widened(inputs, outputs, taps, stride, padding, extra=0):
    """A transposed convolution with its normalisation."""
    layer = nn.ConvTranspose2d(inputs, outputs, taps, stride, padding, extra, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class Generator(nn.Module):
    """An image out of numbers (DCGAN)."""

    def __init__(self):
        super().__init__()
        layers = [widened(100, 512, 4, 1, 0)] + [widened(2 * c, c, 4, 2, 1) for c in (256, 128, 64)]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(64, 3, 4, 2, 1), nn.Tanh())

    def forward(self, x):
        return self.layers(x)


class Autoencoder(nn.Module):
    """Digits through 32 numbers."""

    def __init__(self):
        super().__init__()
        down = [nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Flatten()]
        up = [nn.Linear(32, 64 * 49), nn.ReLU(), nn.Unflatten(1, (64, 7, 7)), nn.ConvTranspose2d(64, 32, 3, 2, 1, 1), nn.ReLU()]
        self.layers = nn.Sequential(*down, nn.Linear(64 * 49, 32), *up, nn.ConvTranspose2d(32, 1, 3, 2, 1, 1), nn.Sigmoid())

    def forward(self, x):
        return self.layers(x)


class Style(nn.Module):
    """An image painted like another: reflected borders, normalisation by image, repeated pixels."""

    def __init__(self):
        super().__init__()

        def layer(inputs, outputs, taps, stride=1, wider=False):
            parts = [nn.Upsample(scale_factor=2)] if wider else []
            parts += [nn.ReflectionPad2d(taps // 2), nn.Conv2d(inputs, outputs, taps, stride)]
            return nn.Sequential(*parts, nn.InstanceNorm2d(outputs, affine=True))

        self.down = nn.Sequential(layer(3, 32, 9), nn.ReLU(), layer(32, 64, 3, 2), nn.ReLU(), layer(64, 128, 3, 2), nn.ReLU())
        self.middle = nn.ModuleList([nn.Sequential(layer(128, 128, 3), nn.ReLU(), layer(128, 128, 3)) for _ in range(5)])
        self.up = nn.Sequential(layer(128, 64, 3, wider=True), nn.ReLU(), layer(64, 32, 3, wider=True), nn.ReLU())
        self.last = nn.Sequential(nn.ReflectionPad2d(4), nn.Conv2d(32, 3, 9))

    def forward(self, x):
        x = self.down(x)
        for block in self.middle:
            x = x + block(x)
        return self.last(self.up(x))


class Vocoder(nn.Module):
    """Sound out of a spectrogram, by transposed and dilated convolutions (HiFi-GAN)."""

    def __init__(self, channels=256):
        super().__init__()
        self.first = nn.Conv1d(80, channels, 7, padding=3)
        self.wider, self.blocks = nn.ModuleList(), nn.ModuleList()
        for taps, stride in ((16, 8), (16, 8), (4, 2), (4, 2)):
            self.wider.append(nn.ConvTranspose1d(channels, channels // 2, taps, stride, (taps - stride) // 2))
            channels //= 2
            layer = lambda taps, apart: nn.Conv1d(channels, channels, taps, padding=(taps - 1) * apart // 2, dilation=apart)
            kernels = [[(layer(taps, apart), layer(taps, 1)) for apart in (1, 3, 5)] for taps in (3, 7, 11)]
            self.blocks.append(nn.ModuleList([nn.ModuleList([nn.ModuleList(pair) for pair in rows]) for rows in kernels]))
        self.last = nn.Conv1d(channels, 1, 7, padding=3)

    def forward(self, x):
        x = self.first(x)
        for wider, blocks in zip(self.wider, self.blocks):
            x, total = wider(functional.leaky_relu(x, 0.1)), 0
            for pairs in blocks:
                y = x
                for first, second in pairs:
                    y = y + second(functional.leaky_relu(first(functional.leaky_relu(y, 0.1)), 0.1))
                total = total + y
            x = total / len(blocks)
        return torch.tanh(self.last(functional.leaky_relu(x)))


class Points(nn.Module):
    """Points turned by a matrix of their own, and the largest of every feature (PointNet)."""

    def __init__(self):
        super().__init__()
        layer = lambda i, o: [nn.Conv1d(i, o, 1), nn.BatchNorm1d(o), nn.ReLU()]
        self.turned = nn.Sequential(*layer(3, 64), *layer(64, 128), *layer(128, 1024))
        self.matrix = nn.Sequential(nn.Linear(1024, 256), nn.ReLU(), nn.Linear(256, 9))
        self.features = nn.Sequential(*layer(3, 64), *layer(64, 128), *layer(128, 1024))
        self.last = nn.Sequential(nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 40))

    def forward(self, x):
        matrix = self.matrix(self.turned(x).amax(2)).view(-1, 3, 3) + torch.eye(3)
        return self.last(self.features((x.transpose(1, 2) @ matrix).transpose(1, 2)).amax(2))


class Experts(nn.Module):
    """A feed-forward layer of four experts, all of which are asked."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(256, 4)
        self.first, self.second = (nn.Parameter(0.05 * torch.randn(4, *size)) for size in ((256, 512), (512, 256)))

    def forward(self, x):
        hidden = functional.gelu(torch.einsum("td,edh->teh", x, self.first))
        return torch.einsum("teh,ehd,te->td", hidden, self.second, self.gate(x).softmax(-1))


class Selection(nn.Module):
    """A state space whose steps depend on what is read (Mamba), step by step."""

    def __init__(self, features=128, states=16, steps=32):
        super().__init__()
        inner = 2 * features
        self.states, self.steps = states, steps
        self.first, self.last = nn.Linear(features, 2 * inner), nn.Linear(inner, features)
        self.before = nn.Conv1d(inner, inner, 4, groups=inner, padding=3)
        self.selected, self.rate = nn.Linear(inner, 8 + 2 * states), nn.Linear(8, inner)
        self.decay, self.skip = nn.Parameter(torch.randn(inner, states)), nn.Parameter(torch.ones(inner))

    def forward(self, x):
        read, gate = self.first(x).chunk(2, -1)
        read = functional.silu(self.before(read.transpose(1, 2))[..., : self.steps].transpose(1, 2))
        rate, into, out = self.selected(read).split([8, self.states, self.states], -1)
        rate, state, steps = functional.softplus(self.rate(rate)), torch.zeros(x.shape[0], read.shape[-1], self.states), []
        for step in range(self.steps):
            at = rate[:, step, :, None]
            state = state * torch.exp(-at * self.decay.exp()) + at * into[:, step, None, :] * read[:, step, :, None]
            steps.append((state * out[:, step, None]).sum(-1))
        return self.last((torch.stack(steps, 1) + read * self.skip) * functional.silu(gate))


def segmented(name):
    """A model of torchvision that gives every pixel a class."""

    class Classes(nn.Module):
        def __init__(self):
            import torchvision

            super().__init__()
            self.model = getattr(torchvision.models.segmentation, name)(weights=None, weights_backbone=None)

        def forward(self, x):
            return self.model(x)["out"]

    return lambda: (Classes(), (torch.randn(1, 3, 224, 224),))


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
    depth = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 768}
    depth |= {"image_size": 192, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [48, 96, 192, 192]}
    depth |= {"fusion_hidden_size": 64}
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
        "dpt": called("DPTConfig|DPTForDepthEstimation", "pixel_values", (1, 3, 192, 192), **depth),
        "deeplabv3": segmented("deeplabv3_mobilenet_v3_large"),
        "lraspp": segmented("lraspp_mobilenet_v3_large"),
        "generator": lambda: (Generator(), (torch.randn(1, 100, 1, 1),)),
        "autoencoder": lambda: (Autoencoder(), (torch.randn(8, 1, 28, 28),)),
        "style": lambda: (Style(), (torch.randn(1, 3, 224, 224),)),
        "vocoder": lambda: (Vocoder(), (torch.randn(1, 80, 40),)),
        "points": lambda: (Points(), (torch.randn(1, 3, 1024),)),
        "experts": lambda: (Experts(), (torch.randn(64, 256),)),
        "selection": lambda: (Selection(), (torch.randn(1, 32, 128),)),
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
