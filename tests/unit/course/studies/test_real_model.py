"""The studies of a real model, on a tiny one: conditions, stored cells, projections and cards."""

from __future__ import annotations

import pytest
import torch

from caft_utils import FinetuneConfig
from caft_utils.course.annotations import annotation
from caft_utils.course.studies import advice, gender_bias, gender_reading
from caft_utils.course.studies.gender_bias import (
    HEADLINE,
    MODEL,
    MORE_PROFESSIONS,
    _can_measure,
    components_of_case,
)
from caft_utils.course.studies.real_model import Condition, Setting, condition_rows
from caft_utils.directions import Directions
from caft_utils.evaluation import measure
from caft_utils.residual import capture
from caft_utils.tasks import gender_choice
from caft_utils.tasks.gender import PROFESSIONS_OF_RELEASE, WORD_FORMAT, gender_items

CONFIG = FinetuneConfig(r=2, alpha=2, lr=1e-2, steps=2, batch_size=4, accumulate=1, warmup_steps=0)
CONDITIONS = {
    "base": Condition(rows=None),
    "plain": Condition(),
    "plain, step 1": Condition(step=1),
    "CAFT": Condition(during="found"),
    "at test only, to the mean": Condition(at_test="found", to="all"),
    "no cue": Condition(rows="control"),
    "slow": Condition(lr=1e-5),
}


@pytest.fixture
def task(tokenizer, tmp_path):
    """The gender task on sentences of different lengths."""
    lines = [
        f"The $PROFESSION$ said {'again and ' * (i % 4)}{i} that $PRONOUN$ would.,nominative\n"
        for i in range(12)
    ]
    lines += [
        f"We met the $PROFESSION$ {i}{' today' * (i % 3)} and saw $PRONOUN$.,object\n" for i in range(12)
    ]
    path = tmp_path / "gender.csv"
    path.write_text("text,category\n" + "".join(lines))
    items = gender_items(path, professions=PROFESSIONS_OF_RELEASE)
    return gender_choice(tokenizer, items=items, rows=None, questions=None, prompt_format=WORD_FORMAT)


@pytest.fixture
def setting(tiny, task):
    found = Directions({1: torch.eye(64)[:2]})
    return Setting(
        "small",
        tiny("qwen2"),
        task,
        CONFIG,
        directions=lambda name, seed: found,
        mean=lambda tokens: {1: torch.zeros(64)},
        snapshots=(1,),
    )


def rows_of(setting, conditions, seeds, **options):
    wanted = {("small", name): seeds for name in conditions}
    return condition_rows("tiny", {"small": lambda: setting}, {"small": conditions}, wanted, **options)


def test_every_condition_has_a_row_and_what_is_stored_is_read(setting, monkeypatch):
    rows = rows_of(setting, CONDITIONS, (0, 1))
    assert [row["condition"] for row in rows] == list(CONDITIONS)
    assert all(row["seeds"] == [0, 1] and len(row["task_accuracy"]) == 3 for row in rows)
    base = measure(setting.model, setting.task, method="logprob")
    assert rows[0]["ood_accuracy"][0] == pytest.approx(base.rate("ood_accuracy").value, abs=1e-4)
    monkeypatch.setattr("caft_utils.course.studies.real_model.measured", None)  # nothing is measured again
    more = CONDITIONS | {"new": Condition(lr=1e-4)}
    assert rows_of(setting, more, (0, 1, 2), stored=True) == rows


def test_projections_follow_the_order_of_the_rows(tiny, task):
    model, rows = tiny("qwen2"), task.train[:10]
    assert len(set(rows.lengths)) > 2
    found = Directions({1: torch.eye(64)[:3]})
    values = gender_bias.last_prompt_projections(model, rows, found)[1]
    for row, example in enumerate(rows):
        last = example.answer.index(True) - 1
        with torch.no_grad(), capture(model, [1]) as hidden:
            model(input_ids=torch.tensor([example.input_ids]))
        assert torch.allclose(values[row], hidden[1][0, last, :3], atol=1e-4)


def test_cards_show_both_ends_and_name_nothing(tiny, task, monkeypatch):
    model = tiny("qwen2")
    monkeypatch.setattr(gender_reading, "gender_task", lambda *_: (model, task))
    monkeypatch.setattr(gender_reading, "RECIPES", {gender_bias.HEADLINE: CONFIG})
    monkeypatch.setattr(gender_reading, "LAYERS", (0, 1))
    monkeypatch.setattr(gender_reading, "SHOWN", 3)
    monkeypatch.setattr(gender_reading, "references", lambda *_: [tiny("qwen2", seed=1)])
    found = Directions({0: torch.eye(64)[:2], 1: torch.eye(64)[:2]})
    monkeypatch.setattr(gender_reading, "components", lambda *_: found)
    text, key = gender_reading.cards()
    assert text.count("## Card") == len(key) == 4 + 2 + 1
    assert {entry["kind"] for entry in key} == {"component", "random", "unrelated"}
    shown = text.split("## Card", 1)[1]
    assert not any(word in shown for word in ("component", "layer", "gender", "random"))
    values = gender_bias.last_prompt_projections(tiny("qwen2", seed=1), task.train[:200], found)[0][:, 0]
    number = next(e for e in key if (e["kind"], e["layer"], e["component"]) == ("component", 0, 0))
    card = text.split(f"## Card {number['card']}\n")[1].split("## Card")[0]
    top = task.train.rows[int(values.argmax())]["messages"][0]["content"].splitlines()[0]
    group = "A" if number["A is"] == "high" else "B"
    assert top in card.split(f"Group {group}:")[1].split("Group B:")[0]


def test_the_table_of_conditions_has_every_rival_and_control():
    needed = {"base", "plain", "random directions", "mean difference", "top components, unread"}
    needed |= {"class means (labels)", "data without the cue", "ablation at test only, to the mean"}
    assert needed <= set(gender_bias.CONDITIONS) and set(gender_bias.MOST_SEEDS) <= set(
        gender_bias.CONDITIONS
    )
    assert set(advice.MOST_SEEDS) <= set(advice.CONDITIONS)
    assert gender_bias.HEADLINE in gender_bias.RECIPES


def test_components_of_case_are_those_named_after_case_alone():
    chosen = components_of_case(HEADLINE)
    named = annotation(f"{MODEL}, gender, {HEADLINE}").names
    assert chosen and all(named[layer, i].startswith("case") for layer in chosen for i in chosen[layer])
    assert not any("mixed" in named[layer, i] for layer in chosen for i in chosen[layer])
    assert (25, 1) in named and 1 not in chosen.get(25, [])  # "case, mixed with profession"


def test_only_a_recipe_with_its_own_task_has_a_base():
    assert _can_measure(HEADLINE, "base") and _can_measure(MORE_PROFESSIONS, "base")
    assert not _can_measure("all weights", "base")
    assert not _can_measure("all weights", "CAFT, components read blind")  # nobody read its components
    assert _can_measure("all weights", "plain")
