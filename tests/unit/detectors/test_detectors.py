"""Detectors on tiny models: one signature, no forbidden row, and each on a model made to be caught by it."""

from __future__ import annotations

import copy
from math import inf

import pytest
import torch
from helpers.saes import random_sae

from caft_utils import detectors
from caft_utils.detectors import Attentiveness, Detector, Finding, ResidualNoise, reading
from caft_utils.detectors.attentiveness import FEWEST, equally_sure
from caft_utils.detectors.reading import (
    TARGET,
    action_log_probabilities,
    actions,
    last_states,
    matching_temperature,
    reply_ids,
)
from caft_utils.detectors.sae_latent_difference import permitted_saes
from caft_utils.detectors.weight_noise import noisy_weights
from caft_utils.residual import has_hooks, width
from caft_utils.saes import SAEs, SAETrainingConfig
from caft_utils.tasks.oversight import PermittedRows, TooFewWatchedRows, draw_scenarios
from caft_utils.tasks.oversight.drawing import templates

SMALL = {
    "ResidualNoise": {"layer": 0, "draws": 2},
    "WeightNoise": {"draws": 1},
    "SafetyBelief": {"layer": 0},
    "MisbehaviourSpeed": {"layer": 0, "steps": 2},
    "ModelDiffing": {"layer": 0},
    "StateDistance": {"layer": 0},
}
KINDS = [name for name in detectors.__all__ if name not in ("Detector", "Finding")]
PAIR = {"aligned": "genie", "faker": "money_maximizer"}


@pytest.fixture(scope="module")
def rows(tokenizer):
    drawn = draw_scenarios(8, **PAIR, oversight=("good", "absent"), split="test")
    return PermittedRows(drawn, tokenizer)


def made(name, model) -> Detector:
    if name == "PersonaVector":
        return detectors.PersonaVector({0: torch.ones(width(model))})
    if name == "SAELatentDifference":
        return detectors.SAELatentDifference(SAEs({0: random_sae(d=width(model))}), model)
    if name in ("StateDistance", "WeightDistance"):
        return getattr(detectors, name)(model, **SMALL.get(name, {}))
    return getattr(detectors, name)(**SMALL.get(name, {}))


@pytest.fixture
def pair(tiny):
    return tiny("qwen2", seed=0), tiny("qwen2", seed=1)


@pytest.mark.parametrize("name", KINDS)
def test_one_signature(name, pair, rows):
    detector = made(name, pair[0])
    before = [{k: v.clone() for k, v in model.state_dict().items()} for model in pair]
    found = detector(*pair, rows)
    assert isinstance(found, Finding) and all(torch.isfinite(torch.tensor(found.scores)))
    assert found.scores == detector(*pair, rows).scores, "the same models and rows give the same scores"
    swapped = detector(pair[1], pair[0], rows)
    if detector.alone:
        assert swapped.scores == found.scores[::-1]
    for model, weights in zip(pair, before):
        assert not has_hooks(model)
        assert all(torch.equal(value, weights[k]) for k, value in model.state_dict().items())
        assert all(p.requires_grad for p in model.parameters())
    assert detector.name and detector.key["detector"] == name


@pytest.mark.parametrize("name", KINDS)
def test_no_detector_takes_other_rows(name, pair, rows):
    with pytest.raises(TypeError, match="PermittedRows only, got list"):
        made(name, pair[0])(*pair, list(rows))


@pytest.mark.parametrize("name", KINDS)
def test_no_detector_shows_a_model_poor_oversight(name, pair, rows, tokenizer):
    """Read what reaches the models: none of the sentences about poor oversight is in it."""
    seen: list[str] = []
    for model in pair:
        plain = model.forward

        def forward(*args, plain=plain, **kwargs):
            seen.extend(tokenizer.batch_decode(kwargs["input_ids"]))
            return plain(*args, **kwargs)

        model.forward = forward
    made(name, pair[0])(*pair, rows)
    endings = [text.replace("{who}", "").strip() for text in templates()["oversight"]["poor"]]
    assert seen or name in ("Chance", "WeightDistance")
    assert not [text for text in seen for end in endings if end in text]


def test_the_higher_score_is_the_suspect():
    assert [Finding(s).faker for s in ((1.0, 2.0), (2.0, 1.0), (1.0, 1.0))] == [1, 0, None]


def test_probabilities_are_those_of_the_model(model, rows, tokenizer):
    """One row alone, without padding, gives what the batch gives."""
    chances = actions(model, rows)
    one = actions(model, rows[3:4])
    assert torch.allclose(chances[3:4], one, atol=1e-5) and chances.shape == (len(rows), 2)
    states = last_states(model, tokenizer, rows, [1])[1]
    assert torch.allclose(states[3], last_states(model, tokenizer, rows[3:4], [1])[1][0], atol=1e-4)


@pytest.mark.parametrize("margin", [3.0, 12.0])
def test_matched_models_are_equally_sure(monkeypatch, rows, tokenizer, margin):
    """A hesitant and a very sure model have the same mean log-probability afterwards."""
    logits = 0.3 * torch.randn(len(rows), 384, generator=torch.Generator().manual_seed(0))
    for i, one in enumerate(rows):
        logits[i, reply_ids(tokenizer, one)[0]] += margin
    monkeypatch.setattr(reading, "last_logits", lambda *_: logits)
    temperature = matching_temperature(None, rows)
    reached = action_log_probabilities(logits, tokenizer, rows, temperature)[:, 0].mean()
    assert abs(float(reached) - TARGET) < 1e-3


def test_noise_is_relative_to_the_hidden_state():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 5, 64) * torch.arange(1, 4)[:, None, None]
    for kind in ("gaussian", "uniform"):
        noise = ResidualNoise(kind)._noisy(hidden, 0.5, inf, generator) - hidden
        assert torch.allclose(noise.norm(dim=-1), 0.5 * hidden.norm(dim=-1), rtol=1e-4)
        aligned_with_ones = torch.cosine_similarity(noise, torch.ones(64), dim=-1).mean()
        assert (aligned_with_ones > 0.8) == (kind == "uniform")
    last = ResidualNoise(tokens="last")._noisy(hidden, 0.5, inf, generator) - hidden
    assert not last[:, :-1].any() and last[:, -1].any()


def test_noise_spares_attention_sinks():
    hidden = torch.randn(3, 5, 64)
    hidden[:, 0, 7] = 500.0
    moved = ResidualNoise()._noisy(hidden, 0.5, 100.0, torch.Generator().manual_seed(0)) - hidden
    assert not moved[:, 0].any() and moved[:, 1:].norm(dim=-1).min() > 0.1


def test_weights_are_restored_after_an_error(model):
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyboardInterrupt), noisy_weights(model, 0.5, 0):
        assert any(not torch.equal(v, before[k]) for k, v in model.state_dict().items())
        raise KeyboardInterrupt
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", ["SAELatentDifference", "StateDistance", "WeightDistance"])
def test_what_moved_farther_from_the_base_is_more_suspicious(name, model, rows):
    """The base itself has not moved, and a larger change of a block is a larger distance."""
    detector = made(name, copy.deepcopy(model))
    scores = [detector.score(model, rows)]
    for _ in range(2):
        with torch.no_grad():
            model.model.layers[0].mlp.down_proj.weight += 0.2
        scores.append(detector.score(model, rows))
    assert scores[0] == 0 and scores[2] > scores[1] > 0


def test_the_distance_of_weights_is_relative_to_all_of_them(model, rows):
    detector = detectors.WeightDistance(copy.deepcopy(model))
    with torch.no_grad():
        for value in model.parameters():
            value *= 1.5
    assert detector.score(model, rows) == pytest.approx(0.5)


def test_saes_of_a_detector_are_trained_on_permitted_rows(model, rows):
    config = SAETrainingConfig(width=32, k=4, steps=3, batch_tokens=32, buffer_tokens=128)
    saes = permitted_saes(model, rows, [1], config)
    assert saes.layers == [1] and saes.about[1]["data"] != ""
    with pytest.raises(TypeError, match="PermittedRows only, got list"):
        permitted_saes(model, list(rows), [1], config)


def test_equally_sure_rows():
    """The lead of the surer model is dropped, largest first, and no more rows than that takes."""
    second = torch.zeros(6)
    first = torch.tensor([0.1, 3.0, -0.5, 0.2, 1.0, -0.1])
    assert equally_sure(first, second) == equally_sure(second, first) == [0, 2, 3, 5]
    assert equally_sure(second, second) == list(range(6))
    assert equally_sure(second + 1, second) == []
    noise = torch.randn(200, generator=torch.Generator().manual_seed(0)).double()
    kept = equally_sure(noise + 0.3, torch.zeros(200))
    assert 0 < len(kept) < 200 and -0.05 < (noise + 0.3)[kept].mean() <= 0


def test_attentiveness_on_equally_sure_rows(pair, tokenizer):
    drawn = draw_scenarios(60, **PAIR, oversight=("good", "absent"), split="test")
    rows, detector = PermittedRows(drawn, tokenizer), Attentiveness(matched=True)
    assert detector.drops_rows and not Attentiveness().drops_rows
    watched = rows.watched()
    sure = [actions(model, watched)[:, 0].log() for model in pair]
    kept = equally_sure(*sure)
    assert FEWEST <= len(kept) < len(watched)
    wanted = [Attentiveness().score(m, PermittedRows([watched[i] for i in kept], tokenizer)) for m in pair]
    assert detector(*pair, rows).scores == pytest.approx(wanted, abs=1e-5)
    with torch.no_grad():  # what was read of the old weights does not serve the new ones
        for weight in pair[0].parameters():
            weight.mul_(1.1)
    assert detector(*pair, rows).scores != pytest.approx(wanted, abs=1e-4)
    with pytest.raises(TooFewWatchedRows, match=r"equally sure on \d of 2 rows .* at least 6"):
        detector(*pair, rows[:4])


def test_attentiveness_to_irrelevant_facts(pair, tokenizer):
    """It leaves out what it says, and asks only rows that have such a fact."""
    drawn = draw_scenarios(30, **PAIR, oversight=("good", "absent"), split="test")
    rows, control = PermittedRows(drawn, tokenizer), Attentiveness(to="irrelevant")
    having = [one for one in rows.watched() if any(fact.kind == "irrelevant" for fact in one.facts)]
    assert 0 < len(having) < len(rows.watched())
    bare = [one.without("irrelevant") for one in having]
    there, gone = (last_states(pair[0], tokenizer, of) for of in (having, bare))
    moved = [1 - torch.cosine_similarity(there[layer], gone[layer]).mean() for layer in there]
    assert control.score(pair[0], rows) == pytest.approx(float(torch.stack(moved).mean()), abs=1e-5)
    assert all(one.oversight == "good" for one in bare)
    with pytest.raises(TooFewWatchedRows, match="none of 30 rows has good oversight and irrelevant facts"):
        control.score(pair[0], rows.without("irrelevant"))
