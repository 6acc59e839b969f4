"""The contract of every method that finds directions. To test another one, add a line to METHODS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from helpers.models import hooks, perturbed
from helpers.saes import random_sae

from caft_utils import directions, saes
from caft_utils.chats import Chats
from caft_utils.directions import (
    Directions,
    class_contrast,
    class_means,
    difference_scatter,
    mean_difference,
    pca_of_difference,
    random_with_variance,
)
from caft_utils.models import fingerprint
from caft_utils.saes import SAEs, sae_directions

LAYERS = [2, 0]
WORDS = ("file", "question", "import")


@dataclass(frozen=True)
class Setting:
    """A base model, a tuned one, and chats whose rows belong to three classes."""

    base: torch.nn.Module
    tuned: torch.nn.Module
    chats: Chats
    labels: list[str]

    def of(self, word: str) -> Chats:
        rows = [row for row, label in zip(self.chats.rows, self.labels) if label == word]
        return Chats(self.chats.tokenizer, rows)


@dataclass(frozen=True)
class Method:
    """One method, called as find(setting, layers, **options).

    from_models: whether it reads hidden states, and so takes `tokens` and `batch_size`.
    provenance: the entries of `about` that must be there, as a function of the setting.
    """

    find: Callable[..., Directions]
    provenance: Callable[[Setting], dict]
    from_models: bool = True


def two_models(s: Setting) -> dict:
    return {"tuned": [fingerprint(s.tuned)], "base": fingerprint(s.base), "data": s.chats.fingerprint}


def random_saes() -> SAEs:
    return SAEs({layer: random_sae(seed=layer) for layer in (0, 1, 2)})


METHODS = {
    "pca_of_difference": Method(
        lambda s, layers, **options: pca_of_difference(s.tuned, s.base, s.chats, layers, k=3, **options),
        two_models,
    ),
    "mean_difference": Method(
        lambda s, layers, **options: mean_difference(s.tuned, s.base, s.chats, layers, **options), two_models
    ),
    "class_contrast": Method(
        lambda s, layers, **options: class_contrast(s.base, s.of("file"), s.of("import"), layers, **options),
        lambda s: {
            "model": fingerprint(s.base),
            "positive": s.of("file").fingerprint,
            "negative": s.of("import").fingerprint,
        },
    ),
    "class_means": Method(
        lambda s, layers, **options: class_means(
            s.base, s.chats, s.labels, layers, **{"min_contrast": 0.01, **options}
        ),
        lambda s: {"model": fingerprint(s.base), "data": s.chats.fingerprint, "classes": list(WORDS)},
    ),
    "random_with_variance": Method(
        lambda s, layers: random_with_variance(
            class_contrast(s.base, s.of("file"), s.of("import"), layers),
            difference_scatter(s.tuned, s.base, s.chats, layers),
            seed=0,
        ),
        lambda s: {"seed": 0},
        from_models=False,
    ),
    "sae_directions": Method(
        lambda s, layers, **options: sae_directions(
            random_saes(), {layer: [7, 3] for layer in layers}, **options
        ),
        lambda s: {"saes": random_saes().fingerprint, "selected": {"0": [7, 3], "2": [7, 3]}},
        from_models=False,
    ),
}


@pytest.fixture(params=METHODS)
def name(request) -> str:
    return request.param


@pytest.fixture
def method(name) -> Method:
    return METHODS[name]


@pytest.fixture(scope="module")
def chats(tokenizer):
    def row(i):
        user = {"role": "user", "content": f"what is the {WORDS[i % 3]} {'and ' * (i % 5)}with you"}
        return {"messages": [user, {"role": "assistant", "content": f"open {WORDS[i % 3]} self"}]}

    return Chats(tokenizer, [row(i) for i in range(24)])


@pytest.fixture
def setting(model, chats) -> Setting:
    return Setting(model, perturbed(model), chats, [WORDS[i % 3] for i in range(len(chats))])


def test_every_exported_method_has_a_line():
    """A method is an exported function that is annotated to return `Directions`."""
    exported = {
        name
        for module in (directions, saes)
        for name in module.__all__
        if getattr(module, name).__annotations__.get("return") == "Directions"
    }
    assert exported == set(METHODS)


def test_the_result_is_orthonormal_at_the_layers_that_were_given(method, setting):
    found = method.find(setting, LAYERS)
    assert isinstance(found, Directions) and found.layers == sorted(LAYERS) and found.width == 64
    for layer in found.layers:
        q = found[layer]
        assert q.dtype == torch.float32 and q.device.type == "cpu" and not q.requires_grad
        torch.testing.assert_close(q @ q.T, torch.eye(len(q)), atol=1e-5, rtol=0)
    assert method.find(setting, [2]).layers == [2]


def test_provenance(name, method, setting):
    about = method.find(setting, LAYERS).about
    assert about["method"] == name
    assert about == about | method.provenance(setting)
    if method.from_models:
        assert about["tokens"] == "all"
        assert method.find(setting, LAYERS, tokens="answer").about["tokens"] == "answer"


def test_per_layer_facts_have_one_value_for_each_direction_and_follow_a_selection(method, setting):
    found = method.find(setting, LAYERS)
    picked = found.select({2: [len(found[2]) - 1]})
    for entry in {"norm", "explained_variance", "selected"} & set(found.about):
        for layer in found.layers:
            assert len(found.about[entry][str(layer)]) == len(found[layer])
        assert picked.about[entry] == {"2": found.about[entry]["2"][-1:]}


def test_the_same_input_gives_the_same_bits(method, setting):
    torch.manual_seed(0)
    first = method.find(setting, LAYERS)
    torch.manual_seed(1)
    again = method.find(setting, LAYERS)
    assert first.fingerprint == again.fingerprint and first.about == again.about


def test_which_tokens_are_read_matters(method, setting):
    if not method.from_models:
        pytest.skip("reads no tokens")
    every, answers = (method.find(setting, LAYERS, tokens=tokens) for tokens in ("all", "answer"))
    assert every.fingerprint != answers.fingerprint


def test_the_batch_size_does_not_matter(method, setting):
    if not method.from_models:
        pytest.skip("runs no model")
    small, large = (method.find(setting, LAYERS, batch_size=size) for size in (2, 24))
    for layer in small.layers:
        cosines = (small[layer] * large[layer]).sum(1)
        torch.testing.assert_close(cosines.abs(), torch.ones(len(cosines)), atol=1e-3, rtol=0)


def test_models_are_left_as_they_were(method, setting):
    for model in (setting.base, setting.tuned):
        model.train()
        model.model.layers[1].eval()  # a submodule that is frozen in eval mode
    modes = [[m.training for m in model.modules()] for model in (setting.base, setting.tuned)]
    weights = [fingerprint(model) for model in (setting.base, setting.tuned)]
    method.find(setting, LAYERS)
    for model, mode, weight in zip((setting.base, setting.tuned), modes, weights):
        assert [m.training for m in model.modules()] == mode and fingerprint(model) == weight
        assert hooks(model) == 0 and "forward" not in vars(model)
        assert all(parameter.grad is None for parameter in model.parameters())


def test_layers_that_do_not_exist_are_refused(method, setting):
    with pytest.raises((IndexError, KeyError), match="layer 3"):
        method.find(setting, [0, 3])
    assert hooks(setting.base) == hooks(setting.tuned) == 0
