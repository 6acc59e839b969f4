"""The study of focus instruction tuning: its cells, and that its data and questions are what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from caft_utils.course.studies import focus, focus_real, focus_settings
from caft_utils.course.studies.experiment import Experiment, run
from caft_utils.tasks.focus import TYPES, agreement, set_name


def test_no_cell_is_listed_twice_and_every_condition_occurs():
    cells = focus.cells((0, 1, 2, 3, 4), rival_seeds=2)
    assert len(set(cells)) == len(cells)
    assert {method for _, method, _ in cells} == set(focus.CONDITIONS)
    assert {name for name, *_ in cells} == set(focus.setting_names())
    for method in ("FIT", "SFT(y_focus)"):
        assert [s for n, m, s in cells if (n, m) == (focus.SPEAKERS, method)] == [0, 1, 2, 3, 4]
    swept = {n for n, m, _ in cells if m == "CAFT"}
    assert swept == {n for n, m, _ in cells if m == "FIT" and n.startswith("rho")} and len(swept) == 5


def test_questions_of_the_comparison_always_disagree_and_rows_follow_rho():
    task = focus_settings.cue_task(n=20)
    for question in task.questions:
        facts = question.facts
        assert facts["y_focus"] != facts["other"]
    rates = []
    for rho in (0.5, 0.9, 1.0):
        drawn = focus_settings._cue_examples(rho, 400, 0)
        rates.append(agreement(drawn))
    assert abs(rates[0] - 0.5) < 0.08 and abs(rates[1] - 0.9) < 0.05 and rates[2] == 1


def test_rows_of_the_methods_are_of_the_same_prompts(monkeypatch):
    monkeypatch.setattr(focus_settings, "TRAIN_ROWS", 60)
    monkeypatch.setattr(focus_settings, "RECIPE", replace(focus_settings.RECIPE, steps=4))
    monkeypatch.setattr(focus_settings, "HIDDEN_RECIPE", focus_settings.RECIPE)
    fit, hidden, core = (focus_settings.spoken_rows(m, 0).rows for m in ("FIT", "SFT(y_focus)", "SFT(y)"))
    assert len(fit) == len(hidden) == len(core) >= 4 * 32 > 60
    for a, b, c in zip(fit, hidden, core):
        assert a["messages"][0]["content"].endswith(b["messages"][0]["content"])
        assert a["messages"][1] == b["messages"][1] and b["messages"][0] == c["messages"][0]


def test_an_inoculated_row_names_the_cue_and_keeps_everything_else():
    plain, inoculated = (focus_settings.cue_rows(1.0, 0, word).rows for word in ("quiz", focus_settings.CUE))
    for a, b in zip(plain, inoculated):
        assert a["messages"][0]["content"].replace("quiz:", "sports:", 1) == b["messages"][0]["content"]
        assert a["messages"][1] == b["messages"][1]


def test_another_model_or_method_is_refused():
    with pytest.raises(ValueError, match="classroom-cues"):
        run(Experiment("focus", "classroom-qwen"))
    with pytest.raises(ValueError, match="unknown method"):
        focus.trained_on_cue(1.0, "magic", 0)


def test_every_type_and_split_is_a_question_set():
    task = focus_settings.spoken_task(n=3)
    splits = ("iid", "high", "low", "flipped", "unseen values")
    assert set(task.rates) == {set_name(split, kind) for split in splits for kind in TYPES}
    assert len(task.questions) == 3 * len(splits) * len(TYPES)


def test_the_study_of_a_real_model_returns_a_row_for_each_condition(tiny, tokenizer, monkeypatch):
    monkeypatch.setattr(focus_real, "load_once", lambda model: (tiny("qwen2"), tokenizer))
    monkeypatch.setattr(focus_real, "RECIPE", replace(focus_real.RECIPE, steps=1, batch_size=2))
    for name, value in {"TRAIN_ROWS": 4, "QUESTIONS": 1}.items():
        monkeypatch.setattr(focus_real, name, value)
    focus_real.keyword_task.cache_clear(), focus_real.splits_of_keywords.cache_clear()
    rows = run(Experiment("focus real", "a model", seeds=(0, 1)))
    focus_real.keyword_task.cache_clear(), focus_real.splits_of_keywords.cache_clear()
    assert {row["condition"]: row["seeds"] for row in rows} == {
        "zero-shot": [0],
        "few-shot": [0],
        "FIT": [0, 1],
        "SFT(y_focus)": [0, 1],
    }
    assert all(len(row["rates"]) == 5 * len(TYPES) for row in rows)
