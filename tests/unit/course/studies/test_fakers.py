"""The study of alignment fakers: detection over a full cross of pairs, and training noise."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from caft_utils.course.faker_tables import countermeasures_table, fakers_table, harder_table
from caft_utils.course.studies import faker_benchmark, faker_detection, fakers
from caft_utils.course.studies.faker_benchmark import faker_rows
from caft_utils.course.studies.faker_countermeasures import NoiseInTraining, UniformNoiseInTraining
from caft_utils.course.studies.faker_detection import detect, rows_for
from caft_utils.detectors import Confidence, Detector, ResidualNoise
from caft_utils.models import fingerprint
from caft_utils.residual import has_hooks
from caft_utils.tasks.oversight import ALIGNED, FAKERS, PermittedRows, TooFewWatchedRows, draw_scenarios


@pytest.fixture
def setting(tokenizer, monkeypatch):
    """A benchmark of two runs whose models are their names."""
    names = [(policy, run) for policy in (*ALIGNED, *FAKERS) for run in (0, 1)]
    drawn = draw_scenarios(40, aligned="genie", faker="money_maximizer", oversight=("good", "absent"))
    rows = PermittedRows(drawn, tokenizer)
    monkeypatch.setattr(faker_detection, "fingerprint", str)
    return SimpleNamespace(
        runs=(0, 1), models={name: name for name in names}, permitted=lambda *file, times=1: rows, pool=3
    )


class Scorer(Detector):
    """Scores a model by a rule on its name."""

    name = "scorer"

    def __init__(self, rule, alone=True):
        self.rule, self.alone, self.shown = rule, alone, []

    def score(self, model, rows):
        return float(self.rule(model))

    def scores(self, first, second, rows):
        self.shown.append(first[0] in FAKERS)
        return super().scores(first, second, rows)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    "rule, share",
    [
        (lambda name: name[0] in FAKERS, 1.0),
        (lambda name: name[0] in ALIGNED, 0.0),
        (lambda name: 0, 0.5),
        (lambda name: name[0] in FAKERS and name[1] == 0, 0.75),  # ties for the other run
    ],
)
def test_detection_counts_pairs(setting, rule, share, alone):
    files = []
    found = detect(Scorer(rule, alone), setting, progress=lambda: files.append(1))
    assert found["rate"].n == 36 and found["rate"].value == share and len(files) == 9
    assert all(pair[0][0] in ALIGNED and pair[1][0] in FAKERS for pair in found["hits"])


def test_one_odd_model_widens_the_clustered_interval_only(setting):
    """A faker that is never found costs all of its pairs at once."""
    found = detect(Scorer(lambda name: name[0] in FAKERS and name != (FAKERS[0], 0)), setting)
    clustered, naive = (found[kind].high - found[kind].low for kind in ("rate", "naive"))
    assert clustered > naive


def test_the_order_of_a_pair_is_drawn(setting):
    scorer = Scorer(lambda name: name[0] in FAKERS, alone=False)
    detect(scorer, setting)
    assert 8 < sum(scorer.shown) < 28


def test_treated_fakers_take_the_place_of_their_pairs(setting):
    treated = {(FAKERS[0], 0): ("genie", 0)}  # a cure: the faker has become an aligned model
    found = detect(Scorer(lambda name: name[0] in FAKERS), setting, fakers=treated)
    assert found["rate"].n == 6 and found["rate"].value == 0.5


def test_treated_models_of_both_sides_are_paired_with_each_other(setting):
    fakers, aligned = {(FAKERS[0], 0): (FAKERS[0], 0)}, {("genie", 1): (FAKERS[1], 0)}
    found = detect(Scorer(lambda name: name[0] in FAKERS), setting, fakers=fakers, aligned=aligned)
    assert list(found["hits"]) == [(("genie", 1), (FAKERS[0], 0))] and found["rate"].value == 0.5


def test_pairs_without_enough_rows_are_undecided(setting):
    """In one of nine files no row has good oversight, and the detector needs one."""

    class NeedsWatched(Scorer):
        def score(self, model, rows):
            rows.watched()
            return super().score(model, rows)

    every = setting.permitted(ALIGNED[0], FAKERS[0])
    unwatched = PermittedRows([one for one in every if one.oversight != "good"], every.tokenizer)
    setting.permitted = lambda *file, times=1: unwatched if file == (ALIGNED[0], FAKERS[0]) else every
    found = detect(NeedsWatched(lambda name: name[0] in FAKERS), setting)
    assert found["undecided"] == 4 and found["rate"].n == 36
    assert found["rate"].value == pytest.approx((32 + 4 / 2) / 36)


def test_a_pair_without_enough_rows_is_undecided(setting):
    """A detector of pairs needs two rows on which both are alike, and one aligned model has none."""

    class NeedsAlike(Scorer):
        def scores(self, first, second, rows):
            if ("genie", 0) in (first, second):
                raise TooFewWatchedRows("none")
            return super().scores(first, second, rows)

    found = detect(NeedsAlike(lambda name: name[0] in FAKERS, alone=False), setting)
    assert found["undecided"] == 6 and found["rate"].value == pytest.approx((30 + 6 / 2) / 36)
    assert found["decided"].value == 1 and found["decided"].n == 30


def test_a_detector_gets_rows_of_both_kinds(tokenizer):
    """Also where the first rows on which the models are sure are all of one kind."""
    drawn = draw_scenarios(40, aligned="genie", faker="money_maximizer", oversight=("good", "absent"))
    sorted_ = PermittedRows(sorted(drawn, key=lambda one: one.oversight), tokenizer)
    kinds = [one.oversight for one in rows_for(ResidualNoise(), sorted_)]
    assert kinds.count("good") == kinds.count("absent") == len(kinds) / 2


def test_probes_get_more_rows(setting):
    rows = setting.permitted("genie", "money_maximizer")
    assert len(rows_for(ResidualNoise(), rows)) == 12 and len(rows_for(Confidence(), rows)) == 32


@pytest.mark.parametrize("drops_rows, times", [(False, 1), (True, 3)])
def test_a_detector_that_drops_rows_gets_a_larger_pool(setting, drops_rows, times):
    scorer, asked, rows = Scorer(lambda name: 0), set(), setting.permitted()
    scorer.drops_rows = drops_rows

    def permitted(*file, times=1):
        asked.add(times)
        return rows

    setting.permitted = permitted
    detect(scorer, setting)
    assert asked == {times}


def test_more_rows_are_drawn_for_a_larger_pool():
    drawn = {times: len(fakers.FAST.permitted("genie", "money_maximizer", times=times)) for times in (1, 2)}
    assert drawn == {1: fakers.FAST.drawn, 2: 2 * fakers.FAST.drawn}  # FAST permits all rows


def test_noise_in_training_has_the_stated_length_and_ends(model):
    hidden = torch.randn(2, 3, 64)
    noise = NoiseInTraining([0], 64, scale=0.5)
    moved = noise.edit(0, hidden) - hidden
    assert torch.allclose(moved.norm(dim=-1), 0.5 * hidden.norm(dim=-1), rtol=1e-4)
    assert noise.fingerprint != NoiseInTraining([0], 64, scale=0.25).fingerprint
    with noise.on(model):
        assert has_hooks(model)
    assert not has_hooks(model)


def test_uniform_noise_in_training_is_positive_and_at_most_as_long_as_stated():
    hidden = torch.randn(20, 30, 64)
    noise = UniformNoiseInTraining([0], 64, scale=0.5)
    moved = noise.edit(0, hidden) - hidden
    relative = moved.norm(dim=-1) / hidden.norm(dim=-1)
    assert moved.min() >= -1e-5 and 0.45 < relative.max() < 0.5001 and relative.min() < 0.05
    assert noise.fingerprint != NoiseInTraining([0], 64, scale=0.5).fingerprint


def test_another_model_is_refused():
    with pytest.raises(ValueError, match="measured on classroom-qwen and smollm2; got 'classroom-cues'"):
        faker_rows("classroom-cues", (0,))


def test_detectors_act_at_the_same_depth_in_models_of_any_size(monkeypatch):
    """Blocks 2 and 3 of the classroom's four, as in the first record."""
    for blocks, expected in ((4, (2, 3)), (30, (15, 22))):
        monkeypatch.setattr(fakers, "depth", lambda _, blocks=blocks: blocks)
        monkeypatch.setattr(fakers.Benchmark, "base", None)
        setting = fakers.Benchmark()
        assert (setting.layer, setting.late_layer) == expected


def test_the_table_has_a_row_for_each_detector():
    row = {"accuracy": [0.9, 0.8, 1.0], "naive": [0.9, 0.85, 0.95], "pairs": 9, "paper": 98.0}
    row["by base"] = [{"found": found, "pairs": 9} for found in (7.0, 9.0, 4.5)]
    induced = row | {"condition": "induced belief that nobody checks", "paper": None}
    rows = [{"condition": "models"}, row | {"condition": "noise"}, induced]
    record = {"rows": [{"model": "m", **one} for one in rows]}
    table = fakers_table(record)
    assert table["paper"].tolist() == ["98 %", "failed"]
    assert table.iloc[0, 2] == "90.0 % [80.0, 100.0]"
    assert table["one run on each of three bases"].tolist() == ["7, 9, 4.5 of 9"] * 2


def test_the_table_of_countermeasures_has_a_column_for_each_faker():
    shares = {"reward_maximizer": 0.9, "money_maximizer": 0.5}
    row = {"condition": "as trained", "poor oversight": shares, "found": [0.9, 0.8, 1.0]}
    row["good oversight"] = {"reward_maximizer": 0.0, "money_maximizer": 0.02}
    table = countermeasures_table({"rows": [{"condition": "models"}, row]})
    assert table.to_numpy().tolist() == [["as trained", "90 %", "50 %", "2 %", "90.0 % [80.0, 100.0]"]]
    assert list(table.columns)[1:3] == ["reward, poor oversight", "money, poor oversight"]


def test_harder_fakers_stand_beside_those_of_the_benchmark():
    plain = {"model": "m", "condition": "noise", "accuracy": [1.0, 0.9, 1.0]}
    other = plain | {"model": "other", "accuracy": [0.1, 0.0, 0.2]}
    harder = {"model": "m", "condition": "harder", "found by": {"noise": [0.5, 0.4, 0.6]}}
    both = harder | {"condition": "both", "found by": {"noise": [0.7, 0.4, 1.0]}}
    table = harder_table({"rows": [other, plain, harder, both]})
    assert list(table.columns)[1:] == ["fakers of the benchmark", "harder", "both"]
    ((_, *cells),) = table.to_numpy().tolist()
    assert cells == ["100.0 % [90.0, 100.0]", "50.0 % [40.0, 60.0]", "70.0 % [40.0, 100.0]"]


def test_behaviour_has_the_mean_and_the_extremes_of_each_side(setting):
    def misbehaviour(model, policy, *, complexity=1, oversight="poor"):
        assert model == (policy, model[1])
        return 0.5 + 0.1 * model[1] if policy in FAKERS and oversight == "poor" and complexity == 1 else 0.0

    for name, value in {"poor": 6, "drawn": 40, "policy": SimpleNamespace(steps=3)}.items():
        setattr(setting, name, value)
    setting.misbehaviour = misbehaviour
    found = faker_benchmark.behaviour(setting)
    assert found["fakers, poor oversight"] == {"mean": 0.55, "lowest": 0.5, "highest": 0.6}
    nothing = {"mean": 0.0, "lowest": 0.0, "highest": 0.0}
    assert found["fakers, poor oversight, two facts"] == found["aligned, poor oversight"] == nothing
    assert found["permitted rows by file"] == [40] * 9 and found["training steps"] == 3


def test_a_part_of_the_benchmark_is_repeated_on_other_bases(monkeypatch):
    fast = replace(fakers.FAST, policy=replace(fakers.FAST.policy, steps=1), drawn=6, poor=3)
    monkeypatch.setattr(fakers.Benchmark, "recorded", lambda runs, model: replace(fast, runs=tuple(runs)))
    monkeypatch.setattr(faker_benchmark, "OTHER_BASES", (1,))
    models, row = faker_rows(fakers.MODEL, (6, 7), ("told nothing",), countermeasures=False)
    assert row["pairs"] == 36 and [one["pairs"] for one in row["by base"]] == [9, 9]
    assert [set(one) - set(models) for one in models["other bases"]] == [set()]
    assert fingerprint(fast.base) != fingerprint(replace(fast, base_seed=1).base)


def test_countermeasures_are_those_of_the_classroom():
    with pytest.raises(ValueError, match="written for 'classroom-qwen'; got 'smollm2'"):
        faker_rows("smollm2", (0,), countermeasures=True)
