"""Training on one letter: the recipes, ablation at the embedding output, and weights that are tied."""

from __future__ import annotations

import pytest
import torch

from caft_utils.classroom.cues.tasks import FORMAT as CLASSROOM
from caft_utils.directions import Directions
from caft_utils.evaluation.measurement import measure
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.finetuning.run import finetune
from caft_utils.interventions import ablate
from caft_utils.residual import EMBEDDING, capture
from caft_utils.tasks import double_choice
from caft_utils.tasks.choice import PAPER
from caft_utils.tasks.items import SPLITS, Item

FULL = FinetuneConfig(
    method="full", lr=3e-3, betas=(0.9, 0.95), steps=5, batch_size=8, accumulate=1, warmup_steps=1
)
LORA = FinetuneConfig(lr=3e-3, r=4, alpha=8, steps=5, batch_size=8, accumulate=1, warmup_steps=1)


def items():
    return {
        name: {
            split: [Item(f"{name} {'and ' * (i % 4)}{i}", right, wrong) for i in range(12)]
            for split in SPLITS
        }
        for name, right, wrong in (("file", "self", "you"), ("system", "open", "return"))
    }


def make(tokenizer, layout=CLASSROOM):
    options = {"rows": 16, "questions": 8, "items": items(), "prompt_format": layout}
    return double_choice(tokenizer, "file", "system", intended="first", **options)


@pytest.fixture
def bad():
    torch.manual_seed(3)
    return ablate(Directions({EMBEDDING: torch.randn(2, 64), 1: torch.randn(1, 64)}))


@pytest.mark.parametrize("recipe", [FULL, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("layout", [CLASSROOM, PAPER], ids=["chat", "plain"])
@pytest.mark.parametrize("architecture, tied", [("qwen2", True), ("qwen2", False), ("gemma2", True)])
def test_one_letter_is_learnt_under_ablation(tiny, tokenizer, bad, architecture, tied, layout, recipe):
    model, task = tiny(architecture, tie_word_embeddings=tied), make(tokenizer, layout)
    tuned = finetune(model, task.train, recipe, during=bad)
    loss = tuned.caft_run["loss"]
    assert loss[-1] < loss[0]
    out, into = tuned.get_output_embeddings().weight, tuned.get_input_embeddings().weight
    assert (out.data_ptr() == into.data_ptr()) is tied
    assert not tuned.get_input_embeddings()._forward_hooks  # off after training
    again = finetune(model, task.train, recipe, during=bad)  # read from the store: the same model
    ids = torch.tensor([task.valid[0].input_ids])
    with torch.no_grad():
        assert torch.equal(tuned(input_ids=ids).logits, again(input_ids=ids).logits)
    result = measure(tuned, task, temperature=0, during=bad)
    assert result.ood_accuracy().n == result.task_score().n == 8 and result.loss < 8


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_ablation_at_the_embedding_leaves_the_output_matrix_alone(tiny, tokenizer, tied):
    """What is looked up is projected; logits come of the whole matrix, as if input and output were two."""
    torch.manual_seed(0)
    q = torch.linalg.qr(torch.randn(64, 3)).Q.T
    model, example = tiny("qwen2", tie_word_embeddings=tied), make(tokenizer).train[0]
    ids = torch.tensor([example.input_ids])
    inside = model.get_input_embeddings().weight[ids]
    with torch.no_grad():
        expected = model(inputs_embeds=inside - inside @ q.T @ q).logits
        with (
            ablate(Directions({EMBEDDING: q})).on(model),
            capture(model, [EMBEDDING], stop_early=False) as seen,
        ):
            torch.testing.assert_close(model(input_ids=ids).logits, expected, atol=1e-5, rtol=0)
    assert (seen[EMBEDDING] @ q.T).abs().max() < 1e-5


def test_what_tied_weights_let_through(tiny, tokenizer):
    """No gradient comes along Q by the way of the look-up; with tied weights some comes from the output side.

    So under hooks at the embedding the matrix still moves along Q where it serves as output matrix too, and
    that component is there when the hooks go. (Weight decay changes it likewise.)
    """
    torch.manual_seed(0)
    q = torch.linalg.qr(torch.randn(64, 3)).Q.T
    example = make(tokenizer).train[0]
    ids, labels = (torch.tensor([values]) for values in (example.input_ids, example.input_ids))
    labels = labels.masked_fill(~torch.tensor([example.answer]), -100)
    along = {}
    for tied in (False, True):
        model = tiny("qwen2", tie_word_embeddings=tied).train()
        with ablate(Directions({EMBEDDING: q})).on(model):
            model(input_ids=ids, labels=labels).loss.backward()
        gradient = model.get_input_embeddings().weight.grad
        along[tied] = ((gradient @ q.T).norm() / gradient.norm()).item()
    assert along[False] < 1e-5 < along[True]
