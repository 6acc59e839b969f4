"""The page docs/building.md: its code runs from top to bottom on a tiny model."""

from __future__ import annotations

import re

import pytest
import torch
from helpers.paths import REPOSITORY

from caft_utils.models import load

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")


def test_the_code_of_the_page_runs(checkpoint, tmp_path, monkeypatch):
    text = (REPOSITORY / "docs" / "building.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) == 6
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks).replace("path/to/model", str(checkpoint)).replace("steps=30", "steps=2")
    space: dict = {"__name__": "__main__"}
    exec(compile(code.replace("max_new_tokens=16", "max_new_tokens=3"), "building.md", "exec"), space)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        kept, merged = space["again"](input_ids=ids).logits, load(checkpoint)[0](input_ids=ids).logits
    assert not torch.equal(kept, merged)
    assert space["half"].caft_run["during"] != space["safe"].caft_run["during"]
    assert "objective_code" in space["rival"].caft_run
