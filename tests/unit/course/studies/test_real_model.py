"""The studies of a real model, on a tiny one: conditions, stored cells, projections and cards."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from caft_utils import FinetuneConfig
from caft_utils.course.annotations import Annotation, annotation
from caft_utils.course.studies import (
    advice,
    gender_bias,
    gender_conditions,
    gender_latents,
    gender_reading,
)
from caft_utils.course.studies.conditions import Condition, Material, Setting
from caft_utils.course.studies.gender_bias import _can_measure, components_of_case
from caft_utils.course.studies.gender_material import make_gender_material
from caft_utils.course.studies.gender_recipes import HEADLINE, MODEL, MORE_PROFESSIONS, RECIPES
from caft_utils.course.studies.operators import OPERATORS
from caft_utils.course.studies.real_model import condition_rows
from caft_utils.course.studies.rival_methods import METHODS
from caft_utils.directions import Directions, Eraser
from caft_utils.evaluation import measure
from caft_utils.residual import capture
from caft_utils.saes import Latents, SAETrainingConfig
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
def items(tmp_path):
    """The items of sentences of different lengths."""
    lines = [
        f"The $PROFESSION$ said {'again and ' * (i % 4)}{i} that $PRONOUN$ would.,nominative\n"
        for i in range(12)
    ]
    lines += [
        f"We met the $PROFESSION$ {i}{' today' * (i % 3)} and saw $PRONOUN$.,object\n" for i in range(12)
    ]
    path = tmp_path / "gender.csv"
    path.write_text("text,category\n" + "".join(lines))
    return gender_items(path, professions=PROFESSIONS_OF_RELEASE)


@pytest.fixture
def task(tokenizer, items):
    """The gender task."""
    return gender_choice(tokenizer, items=items, rows=None, questions=None, prompt_format=WORD_FORMAT)


@pytest.fixture
def setting(tiny, task, items):
    found = Directions({1: torch.eye(64)[:2]})
    eraser = Eraser({1: torch.eye(64)[:1]}, {1: torch.eye(64)[:1]}, {1: torch.zeros(64)})
    return Setting(
        "small",
        tiny("qwen2"),
        task,
        CONFIG,
        directions=lambda name, seed: found,
        mean=lambda tokens: {1: torch.zeros(64)},
        snapshots=(1,),
        vectors=lambda name, seed: {1: torch.ones(64)},
        eraser=lambda name: eraser,
        material=lambda: make_gender_material(task.train.tokenizer, items),
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


def test_the_text_of_earlier_conditions_is_what_it_was():
    """It is in the key of every stored cell."""
    old = "Condition(rows='train', during=None, at_test='read', to='all', step=None, lr=0.0001)"
    assert str(Condition(at_test="read", to="all", lr=1e-4)) == old
    added = old.removesuffix(")") + ", operator='steer', value=-1.0)"
    assert str(Condition(at_test="read", to="all", lr=1e-4, operator="steer", value=-1.0)) == added
    assert "rival='KL to the base', value=0.1)" in str(Condition(rival="KL to the base", value=0.1))


def test_every_operator_and_rival_is_a_row(setting):
    operators = {
        name: Condition(during="found", at_test="found", operator=name, value=0.5, to="all")
        for name in OPERATORS
    }
    values = {"inoculation prompt": 3, "irrelevant prompt": 0, "inoculation adapter": 1, "random adapter": 1}
    rivals = {name: Condition(rival=name, value=values.get(name, 0.3)) for name in METHODS}
    quick = replace(setting, task=setting.task.thin(ood=4, task=4), config=replace(CONFIG, steps=1))
    rows = rows_of(quick, operators | rivals, (0,))
    assert [row["condition"] for row in rows] == [*operators, *rivals]


def test_a_rivals_cell_depends_on_what_it_is_given(setting, task):
    conditions = {"prompted": Condition(rival="inoculation prompt", value=0), "plain": Condition()}
    rows_of(setting, conditions, (0,))
    given = setting.material()
    other = Material(("Be kind.",), given.irrelevant, given.trait, given.everyday, given.counterexamples)
    changed = replace(setting, material=lambda: other)
    assert [row["condition"] for row in rows_of(changed, conditions, (0,), stored=True)] == ["plain"]


def test_rows_with_the_trait_alone_have_the_same_case_in_both_options(task, items):
    material = make_gender_material(task.train.tokenizer, items)
    cases = [{"he", "she"}, {"him", "her"}]
    for row, reverse in zip(material.trait.rows, material.counterexamples.rows):
        text, answer = (message["content"] for message in row["messages"])
        options = text.split("gap, ")[1].removesuffix("?\nAnswer:").split(" or ")
        assert set(options) in cases
        assert answer.strip() in (("he", "him") if "doctor" in text else ("she", "her"))
        text, answer = (message["content"] for message in reverse["messages"])
        assert answer.strip() in (("she", "her") if "doctor" in text else ("he", "him"))


@pytest.mark.parametrize("named", [{"operator": "cut", "during": "found"}, {"rival": "luck"}])
def test_unknown_operators_and_rivals_are_refused(setting, named):
    with pytest.raises(ValueError, match="unknown (operator 'cut'|rival 'luck')"):
        rows_of(setting, {"new": Condition(value=1.0, **named)}, (0,))


def test_projections_follow_the_order_of_the_rows(tiny, task):
    model, rows = tiny("qwen2"), task.train[:10]
    assert len(set(rows.lengths)) > 2
    found = Directions({1: torch.eye(64)[:3]})
    values = gender_bias.last_prompt_values(model, rows, found)[1]
    for row, example in enumerate(rows):
        last = example.answer.index(True) - 1
        with torch.no_grad(), capture(model, [1]) as hidden:
            model(input_ids=torch.tensor([example.input_ids]))
        assert torch.allclose(values[row], hidden[1][0, last, :3], atol=1e-4)


def test_cards_show_both_ends_and_name_nothing(tiny, task, monkeypatch):
    model = tiny("qwen2")
    monkeypatch.setattr(gender_reading, "gender_task", lambda *_: (model, task))
    monkeypatch.setattr(gender_reading, "RECIPES", {HEADLINE: CONFIG})
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
    values = gender_bias.last_prompt_values(tiny("qwen2", seed=1), task.train[:200], found)[0][:, 0]
    number = next(e for e in key if (e["kind"], e["layer"], e["component"]) == ("component", 0, 0))
    card = text.split(f"## Card {number['card']}\n")[1].split("## Card")[0]
    top = task.train.rows[int(values.argmax())]["messages"][0]["content"].splitlines()[0]
    group = "A" if number["A is"] == "high" else "B"
    assert top in card.split(f"Group {group}:")[1].split("Group B:")[0]


def test_cards_of_latents_show_where_they_are_active(tiny, task, monkeypatch):
    model, tuned = tiny("qwen2"), tiny("qwen2", seed=1)
    config = SAETrainingConfig(width=64, k=8, steps=4, batch_tokens=64, buffer_tokens=256)
    for name, value in {"LAYERS": (0, 1), "CONFIG": config, "SHOWN": 6}.items():
        monkeypatch.setattr(gender_latents, name, value)
    monkeypatch.setattr(gender_reading, "gender_task", lambda *_: (model, task))
    monkeypatch.setattr(gender_reading, "SHOWN", 3)
    monkeypatch.setattr(gender_reading, "references", lambda *_: [tuned])
    text, key = gender_reading.cards(latents=True)
    assert [entry["kind"] for entry in key].count("latent") == 6 and len(key) == 6 + 2
    assert not any(word in text.split("## Card", 1)[1] for word in ("latent", "layer", "gender", "random"))
    rows = task.train[:200]
    saes = gender_latents.autoencoders(model, task.train)
    order = gender_latents.changed_latents([tuned], model, rows, saes)
    assert len(order) == len(set(order)) and {layer for layer, _ in order} == {0, 1}
    before, after = (gender_bias.last_prompt_values(of, rows, Latents(saes)) for of in (model, tuned))
    change = {(layer, i): float((after[layer] - before[layer])[:, i].mean().abs()) for layer, i in order}
    assert all(change[a] >= change[b] - 1e-4 for a, b in zip(order, order[1:]))
    monkeypatch.setattr(gender_latents, "annotation", lambda _: Annotation({0: [3, 5], 1: [7]}, {}))
    read, top = (gender_latents.latent_directions(name, saes, order) for name in ("latents", "top latents"))
    assert read.ranks == {0: 2, 1: 1} and sum(top.ranks.values()) == 3
    drawn = [gender_latents.latent_directions("random latents", saes, order, seed=seed) for seed in (0, 1)]
    assert drawn[0].ranks == drawn[1].ranks == read.ranks and drawn[0].fingerprint != drawn[1].fingerprint
    with pytest.raises(ValueError, match="unknown latents 'best latents'"):
        gender_latents.latent_directions("best latents", saes, order)


def test_latents_are_those_of_the_layers_where_components_were_selected():
    assert list(gender_latents.LAYERS) == sorted(annotation(f"{MODEL}, gender, {HEADLINE}").selection)


def test_the_table_of_conditions_has_every_rival_and_control():
    needed = {"base", "plain", "random directions", "mean difference", "top components, unread"}
    needed |= {"class means (labels)", "data without the cue", "ablation at test only, to the mean"}
    assert needed | set(gender_conditions.MOST_SEEDS) <= set(gender_conditions.CONDITIONS)
    assert set(advice.MOST_SEEDS) <= set(advice.CONDITIONS)
    assert HEADLINE in RECIPES


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
