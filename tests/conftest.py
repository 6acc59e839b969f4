"""Tiny real models of three architectures, a tokenizer with chat markup, an empty store for every test."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys

# A shell makes its background jobs ignore SIGINT, and nohup SIGHUP. Some tests send them, so the
# defaults are restored.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
from helpers.nnsight_here import nnsight  # noqa: E402, F401 - a fixture
from helpers.paths import REPOSITORY  # noqa: E402
from helpers.real_weights import folder_of_real_weights, real_weights  # noqa: E402, F401 - fixtures
from helpers.tiny import make_multimodal, make_tiny, make_tokenizer  # noqa: E402


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    # Imported here, because the process that only hands out the tests needs no torch.
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def stores(tmp_path_factory) -> Path:
    """Return the folder of the stores, and give fixtures that live longer than one test one of them."""
    folder = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAFT_STORE", str(folder / "shared"))
        yield folder


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """One folder with one artefact store for all workers: what a notebook trained is not trained again."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "course"


STORES = itertools.count()


@pytest.fixture(autouse=True)
def store_folder(stores, monkeypatch) -> Path:
    """Give every test a store of its own, in a folder that exists once something is stored."""
    folder = stores / str(next(STORES))
    monkeypatch.setenv("CAFT_STORE", str(folder))
    return folder


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def new_tokenizer():
    """The factory of tokenizers: new_tokenizer(chat_template)."""
    return make_tokenizer


@pytest.fixture
def tiny():
    """The factory of models: tiny("gemma2", seed=1)."""
    return make_tiny


@pytest.fixture
def multimodal():
    """The factory of models of text and images: multimodal("mistral3")."""
    return make_multimodal


@pytest.fixture
def model():
    """A fresh tiny Qwen2, which a test may change."""
    return make_tiny("qwen2")


@pytest.fixture
def checkpoint(tmp_path, model, tokenizer) -> Path:
    """A folder with the tiny Qwen2 and its tokenizer, as `save_pretrained` writes them."""
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of published task data that this project may not redistribute. Tests skip without it."""
    folder = Path(os.environ.get("CAFT_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"published task data not found in {folder}; set CAFT_SHARED_DATA to their folder")
    return folder


MODULES_SEEN = 0


def pytest_collection_finish():
    freeze_imports()


def pytest_runtest_teardown():
    """Many libraries are imported by the first test that needs them."""
    if len(sys.modules) > MODULES_SEEN + 20:
        freeze_imports()


def freeze_imports() -> None:
    """Take what is imported by now out of the garbage collector, which would search it again and again.

    Every fine-tuning run collects garbage, and searching all imports takes longer than training a tiny model.
    """
    global MODULES_SEEN
    MODULES_SEEN = len(sys.modules)
    gc.collect()
    gc.freeze()
