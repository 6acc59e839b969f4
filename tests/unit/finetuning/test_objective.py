"""Extra terms of the loss: they act, they are logged, and they have a place in the run's key."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.training import QUICK, chat_rows, same, weights

from caft_utils.chats import Chats
from caft_utils.finetuning.run import at_step, finetune


@pytest.fixture
def chats(tokenizer):
    return Chats(tokenizer, chat_rows())


class KLToBase:
    """Divergence from the base on answer tokens, times a weight."""

    def __init__(self, weight):
        self.weight, self.fingerprint = weight, f"KLToBase({weight})"
        self.seen = []

    def __call__(self, model, batch, logits):
        with torch.no_grad(), model.disable_adapter():
            base = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        self.seen.append((batch.input_ids.tolist(), batch.answer.tolist()))
        answer = batch.answer[:, 1:]
        new, old = (x[:, :-1][answer].float().log_softmax(-1) for x in (logits, base))
        return self.weight * (new.exp() * (new - old)).sum(-1).mean()


class Constant:
    """A term whose gradient is zero."""

    fingerprint = "Constant"

    def __call__(self, model, batch, logits):
        return 0.5 + 0 * logits.mean()


def test_a_term_is_added_to_the_loss_once_a_step(model, chats):
    """Whether a step is one forward pass or four: the term is averaged over them."""
    for batch_size, accumulate in [(8, 1), (2, 4)]:
        config = replace(QUICK, steps=2, batch_size=batch_size, accumulate=accumulate)
        plain = finetune(model, chats, config).caft_run["loss"]
        run = finetune(model, chats, config, objective=Constant()).caft_run
        assert run["objective_loss"] == [0.5, 0.5]
        assert run["loss"] == pytest.approx([loss + 0.5 for loss in plain], abs=1e-4)


def test_a_divergence_from_the_base_holds_the_model_near_it(model, chats):
    plain, held = finetune(model, chats, QUICK), finetune(model, chats, QUICK, objective=KLToBase(100.0))
    ids = torch.tensor([chats[0].input_ids])
    with torch.no_grad():
        base, far, near = (m(input_ids=ids).logits for m in (model, plain, held))
    assert (near - base).norm() < 0.5 * (far - base).norm()
    divergences = held.caft_run["objective_loss"]
    assert len(divergences) == QUICK.steps and divergences[0] == pytest.approx(0, abs=1e-5)
    assert divergences[-1] > 0


def test_an_objective_sees_the_rows_of_the_batch(model, chats):
    objective = KLToBase(1.0)
    finetune(model, chats, replace(QUICK, steps=1, batch_size=len(chats)), objective=objective)
    [(ids, answer)] = objective.seen
    rows = {(tuple(example.input_ids), tuple(example.answer)) for example in chats}
    lengths = {len(example.input_ids) for example in chats}
    seen = {(tuple(i[:n]), tuple(a[:n])) for i, a in zip(ids, answer) for n in lengths}
    assert rows <= seen


def test_an_objective_is_part_of_the_run_and_its_snapshots(model, chats):
    plain = finetune(model, chats, QUICK)
    weak, strong = (finetune(model, chats, QUICK, objective=KLToBase(w), snapshots=[2]) for w in (1.0, 2.0))
    assert len({m.caft_id for m in (plain, weak, strong)}) == 3 and "objective" not in plain.caft_run
    again = KLToBase(1.0)
    loaded = finetune(model, chats, QUICK, objective=again, snapshots=[2])
    assert not again.seen and loaded.caft_id == weak.caft_id and same(weights(loaded), weights(weak))
    early = at_step(weak, model, 2)
    assert early.caft_id == f"{weak.caft_id}@2" and len(early.caft_run["objective_loss"]) == 2


def plain_function(model, batch, logits):
    return logits.mean()


@pytest.mark.parametrize("objective", [plain_function, KLToBase, 0.5])
def test_what_is_no_objective_is_refused(model, chats, objective):
    with pytest.raises(ValueError, match="objective must be a function .* `fingerprint`"):
        finetune(model, chats, QUICK, objective=objective)


@pytest.mark.parametrize(
    "term, says",
    [
        (lambda logits: 0.5, "got 0.5"),
        (lambda logits: None, "got None"),
        (lambda logits: logits.mean((1, 2)), r"got shape \(8,\)"),
        (lambda logits: logits.mean().detach(), "without gradient, so it would train nothing"),
    ],
)
def test_a_term_that_cannot_be_added_or_trains_nothing_is_refused(model, chats, term, says):
    def objective(model, batch, logits):
        return term(logits)

    objective.fingerprint = "wrong"
    with pytest.raises(ValueError, match=rf"objective \(function objective\).*{says}"):
        finetune(model, chats, QUICK, objective=objective)


def test_a_plain_zero_is_a_term_of_a_batch_to_which_it_does_not_apply(model, chats):
    def objective(model, batch, logits):
        return torch.tensor(0.0)

    objective.fingerprint = "zero"
    config = replace(QUICK, steps=2)
    assert finetune(model, chats, config, objective=objective).caft_run["objective_loss"] == [0, 0]
