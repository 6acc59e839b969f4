"""With MODEL=smollm2 a notebook follows the model and ends where it must.

A random Llama with SmolLM2's depth stands in for the real weights, so numbers mean nothing here.
"""

from __future__ import annotations

import nbformat
import pytest
import transformers
from helpers.paths import REPOSITORY

from caft_utils.course.lesson_notes import NOTES


@pytest.fixture
def stand_in(tmp_path, monkeypatch, new_tokenizer):
    """A folder with a tiny Llama of 30 blocks in the place of SmolLM2."""
    tokenizer = new_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=30,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.setenv("CAFT_SMOLLM2", str(tmp_path / "model"))


@pytest.mark.parametrize("notebook", ["00", "04"])
def test_a_notebook_follows_the_model_and_ends_with_the_reason(stand_in, run_fast, course, notebook):
    (path,) = (REPOSITORY / "notebooks").glob(f"{notebook}_*.ipynb")
    run_fast(path.stem, MODEL="smollm2")
    executed = nbformat.read(course / "executed" / path.name, as_version=4)
    last = executed.cells[-1].outputs[-1]
    assert NOTES[notebook].why in last.data["text/markdown"]
    figures = [
        output.data["application/vnd.plotly.v1+json"]["layout"]["title"]
        for cell in executed.cells
        for output in cell.get("outputs", [])
        if "application/vnd.plotly.v1+json" in output.get("data", {})
    ]
    shown = [title.get("subtitle", {}).get("text", "") + title["text"] for title in figures]
    assert notebook == "00" or any("smollm2" in text for text in shown)
    assert not any("insecure" in text or "classroom" in text for text in shown)
