"""The base of interventions: vectors as buffers, and what a new operator has to bring."""

from __future__ import annotations

import pytest
import torch
from helpers.models import hooks, states

from caft_utils.directions import Directions
from caft_utils.interventions import Intervention


class Scale(Intervention):
    """A new operator in five lines."""

    def edit(self, layer, hidden):
        return hidden * self.vector("factor", layer, hidden)


def test_a_new_operator_needs_edit_only(model):
    plain = states(model)[1]
    factor = torch.linspace(0, 2, 64)
    with Scale({"factor": {1: factor}}).on(model):
        torch.testing.assert_close(states(model)[1], plain * factor)


def test_vectors_are_copied_as_float32_buffers():
    given = torch.ones(64, dtype=torch.float64, requires_grad=True)
    scale = Scale({"factor": {2: given, -1: given}})
    assert scale.layers == [-1, 2] and scale.width == 64
    assert {name: buffer.dtype for name, buffer in scale.named_buffers()} == {
        "factor_2": torch.float32,
        "factor_-1": torch.float32,
    }
    before = scale.fingerprint
    with torch.no_grad():
        given.zero_()
    assert scale.fingerprint == before and not any(b.requires_grad for b in scale.buffers())


def test_a_vector_takes_the_dtype_of_the_hidden_states_and_is_placed_once():
    scale = Scale({"factor": {1: torch.ones(64)}})
    first = scale.vector("factor", 1, torch.zeros(1, dtype=torch.bfloat16))
    assert first.dtype == torch.bfloat16
    assert scale.vector("factor", 1, torch.ones(3, dtype=torch.bfloat16)) is first
    assert scale.vector("factor", 1, torch.zeros(1)).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_vector_that_was_changed_in_place_is_used_as_it_is(dtype):
    scale, like = Scale({"factor": {1: torch.ones(64)}}), torch.zeros(1, dtype=dtype)
    before = scale.fingerprint
    assert scale.vector("factor", 1, like).sum() == 64
    scale.factor_1.mul_(2)
    assert scale.vector("factor", 1, like).sum() == 128 and scale.fingerprint != before
    scale.load_state_dict({"factor_1": torch.zeros(64)})
    assert scale.vector("factor", 1, like).sum() == 0


def test_the_class_name_enters_the_fingerprint():
    class Other(Scale):
        pass

    vectors = {"factor": {1: torch.ones(64)}}
    assert Scale(vectors).fingerprint != Other(vectors).fingerprint
    assert Scale(vectors).fingerprint != Scale({"other": {1: torch.ones(64)}}).fingerprint


def test_the_base_edits_nothing(model):
    with pytest.raises(NotImplementedError), Intervention({"v": {1: torch.ones(64)}}).on(model):
        states(model)
    assert hooks(model) == 0


@pytest.mark.parametrize(
    "vectors, message",
    [
        ({"v": {}}, "at least one layer"),
        ({"v": {1: torch.full((64,), float("nan"))}}, "v at layer 1 .* not finite"),
        ({"v": {1: torch.full((64,), float("inf"))}}, "not finite"),
        ({"v": {1: torch.ones(64)}, "w": {1: torch.ones(63)}}, "one width"),
    ],
)
def test_wrong_vectors_are_refused(vectors, message):
    with pytest.raises(ValueError, match=message):
        Intervention(vectors)


def test_an_edited_class_has_another_fingerprint():
    """Otherwise a fine-tuned model of the old code would be read from the store."""

    def defined(sign):
        space = {"__name__": "__main__", "Intervention": Intervention}
        exec(
            f"class Own(Intervention):\n    def edit(self, layer, hidden):\n        return {sign}hidden",
            space,
        )
        return space["Own"]({"factor": {1: torch.ones(64)}}).fingerprint

    assert defined("+") != defined("-") and defined("+") == defined("+")


def test_an_edit_in_place_leaves_sinks_as_they_are():
    class InPlace(Scale):
        def edit(self, layer, hidden):
            hidden *= 0.5
            return hidden

    hidden = torch.ones(1, 3, 64)
    hidden[0, 0, 0] = 100
    edited = InPlace({"factor": {1: torch.ones(64)}}).edit_but_sinks(1, 50.0, hidden)
    assert edited[0, 0, 0] == 100 and edited[0, 1, 0] == 0.5 and hidden[0, 1, 0] == 1


def test_directions_are_vectors_too(model):
    found = Directions({1: torch.eye(64)[:2]})
    scale = Scale({"rows": found})
    assert scale.layers == [1] and torch.equal(scale.rows_1, found[1])


@pytest.mark.parametrize("given", [torch.ones(64), [torch.ones(64)]])
def test_vectors_without_names_are_refused(given):
    with pytest.raises(ValueError, match=r"given as \{name: \{layer: tensor\}\}"):
        Intervention(given)


@pytest.mark.parametrize(
    "edit, got",
    [
        (lambda self, layer, hidden: None, "returned None"),
        (lambda self, layer, hidden: hidden[..., :3], r"returned \(2, 6, 3\)"),
        (lambda self, layer, hidden: hidden.double(), "returned .* of torch.float64"),
        (
            lambda self, layer, hidden: hidden * self.vector("fact", layer, hidden),
            "no vector 'fact'.*factor_1",
        ),
        (lambda self, layer, hidden: hidden * self.vector("factor", 0, hidden), "at layer 0.*factor_1"),
    ],
    ids=["None", "shape", "dtype", "name", "layer"],
)
def test_a_wrong_edit_is_refused_in_the_first_forward_pass(model, edit, got):
    wrong = type("Wrong", (Intervention,), {"edit": edit})({"factor": {1: torch.ones(64)}})
    with pytest.raises(ValueError, match=f"Wrong.*{got}"), wrong.on(model):
        states(model)
    assert hooks(model) == 0


class Unfinished(Scale):
    def __init__(self):
        self.strength = 1


class WithoutEdit(Intervention):
    pass


def test_a_class_that_lacks_a_part_is_refused_before_any_hook(model):
    with pytest.raises(ValueError, match=r"Unfinished.__init__ must call super\(\).__init__"):
        with Unfinished().on(model):
            pass
    with pytest.raises(NotImplementedError, match="WithoutEdit must define edit"):
        with WithoutEdit({"v": {1: torch.ones(64)}}).on(model):
            pass
    assert hooks(model) == 0
