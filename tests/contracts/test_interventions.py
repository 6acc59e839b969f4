"""The contract of every intervention. To test another one, add a case to CASES."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from helpers.models import ARCHITECTURES, IDS, SINK_TOKEN, hooks, states, with_lora, with_sink

from caft_utils import interventions
from caft_utils.directions import Directions, Eraser
from caft_utils.interventions import (
    Ablate,
    AblateActivation,
    AblateGradient,
    Erase,
    Intervention,
    Steer,
    edit_affinely,
)
from caft_utils.residual import EMBEDDING

WIDTH = 64


def mean_of(directions: Directions, value: float = 0.5) -> dict[int, torch.Tensor]:
    return {layer: torch.full((directions.width,), value) for layer in directions.layers}


def first_rows(directions: Directions) -> dict[int, torch.Tensor]:
    return {layer: directions[layer][0] for layer in directions.layers}


def oblique(directions: Directions, value: float = 0.5) -> Eraser:
    """Return an eraser that writes along Q and reads along Q plus something orthogonal to it."""
    write = {layer: directions[layer] for layer in directions.layers}
    tilt = torch.linspace(-1, 1, directions.width)
    beside = {layer: tilt - tilt @ q.T @ q for layer, q in write.items()}
    read = {layer: q + 0.3 * beside[layer] / beside[layer].norm() for layer, q in write.items()}
    return Eraser(read, write, mean_of(directions, value))


@dataclass(frozen=True)
class Case:
    """One intervention and the properties that define it.

    make: from directions Q at some layers.
    other_setting: the same kind with the same vectors and another setting.
    component: the component along Q [.., k] after the edit, or None if it depends on the hidden state.
    blocks_gradient: the gradient that reaches the site has no component along Q.
    idempotent: a second application changes nothing.
    fingerprint: of `make(UNIT)`. Fine-tuned models are stored under it, so it must never change.
    including: the same, with attention sinks edited like all other tokens.
    edits_values: the forward pass changes, not the backward pass alone.
    """

    make: Callable[[Directions], Intervention]
    other_setting: Callable[[Directions], Intervention]
    component: Callable[[Directions, int], torch.Tensor] | None
    blocks_gradient: bool
    idempotent: bool
    fingerprint: str
    including: Callable[[Directions], Intervention]
    edits_values: bool = True


CASES = {
    "ablate to zero": Case(
        make=Ablate,
        other_setting=lambda q: Ablate(q, mean=mean_of(q)),
        component=lambda q, layer: torch.zeros(len(q[layer])),
        blocks_gradient=True,
        idempotent=True,
        fingerprint="26f4c1a2db17fed2b8530398e01a3761c88b83e9bfdf22c1dda1613fb53bfd27",
        including=lambda q: Ablate(q, sinks="include"),
    ),
    "ablate to mean": Case(
        make=lambda q: Ablate(q, mean=mean_of(q)),
        other_setting=lambda q: Ablate(q, mean=mean_of(q, 0.25)),
        component=lambda q, layer: q[layer] @ mean_of(q)[layer],
        blocks_gradient=True,
        idempotent=True,
        fingerprint="10763087ff3472243619ac2940f280a530fcf5afd6f61956e451f594c208f6a7",
        including=lambda q: Ablate(q, mean=mean_of(q), sinks="include"),
    ),
    "steer": Case(
        make=lambda q: Steer(first_rows(q), 3.0),
        other_setting=lambda q: Steer(first_rows(q), -3.0),
        component=None,
        blocks_gradient=False,
        idempotent=False,
        fingerprint="9a3d88dcb4ffb184a130561441264299ea1db0f3997d9c981a304443f1e3afc1",
        including=lambda q: Steer(first_rows(q), 3.0, sinks="include"),
    ),
}
CASES |= {
    "ablate activation only": Case(
        make=AblateActivation,
        other_setting=lambda q: AblateActivation(q, mean=mean_of(q)),
        component=lambda q, layer: torch.zeros(len(q[layer])),
        blocks_gradient=False,
        idempotent=True,
        fingerprint="64b6f9d12e3b88cb04161585ebe6ac89f5a87576dc0095327f64496c40a9efeb",
        including=lambda q: AblateActivation(q, sinks="include"),
    ),
    "ablate gradient only": Case(
        make=AblateGradient,
        other_setting=Ablate,
        component=None,
        blocks_gradient=True,
        idempotent=True,
        fingerprint="5149c4cf927640c58b79cb59fd8c992e539f119bd17542ab6740e2da68125c73",
        including=lambda q: AblateGradient(q, sinks="include"),
        edits_values=False,
    ),
    "edit affinely": Case(
        make=lambda q: edit_affinely(first_rows(q), mean_of(q), 0.5),
        other_setting=lambda q: edit_affinely(first_rows(q), mean_of(q), 1.0),
        component=None,
        blocks_gradient=False,
        idempotent=True,
        fingerprint="7e32cf8f2585326a6780be3985861317740479f33aaa504b6b93f702d42da866",
        including=lambda q: edit_affinely(first_rows(q), mean_of(q), 0.5, sinks="include"),
    ),
    "erase": Case(
        make=lambda q: Erase(oblique(q)),
        other_setting=lambda q: Erase(oblique(q, 0.25)),
        component=None,
        blocks_gradient=True,
        idempotent=True,
        fingerprint="b77356bf2ac7c93c9d30e73c054c2b740d8bba0abf7064ec32be4ddc77c465e5",
        including=lambda q: Erase(oblique(q), sinks="include"),
    ),
}
UNIT = Directions({0: torch.eye(WIDTH)[[3, 5]], 1: torch.eye(WIDTH)[:1]})


def random_directions(ranks: dict[int, int], seed: int = 0) -> Directions:
    generator = torch.Generator().manual_seed(seed)
    return Directions({layer: torch.randn(k, WIDTH, generator=generator) for layer, k in ranks.items()})


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture
def q() -> Directions:
    return random_directions({EMBEDDING: 1, 0: 2, 1: 3})


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]


def test_every_exported_intervention_has_a_case():
    exported = {
        value
        for name in interventions.__all__
        if isinstance(value := getattr(interventions, name), type) and value is not Intervention
    }
    assert exported == {type(case.make(UNIT)) for case in CASES.values()}


# --- the operator ---


def test_edit_keeps_shape_dtype_and_input(case, q):
    intervention = case.make(q)
    for shape in ((WIDTH,), (5, WIDTH), (2, 5, WIDTH)):
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            h = torch.randn(shape).to(dtype)
            given = h.clone()
            edited = intervention.edit(1, h)
            assert edited.shape == shape and edited.dtype == dtype
            assert torch.equal(h, given) and torch.equal(edited, h) is not case.edits_values


def test_edit_treats_every_position_alike(case, q):
    intervention, h = case.make(q), torch.randn(2, 5, WIDTH)
    alone = torch.stack([intervention.edit(1, token) for token in h.reshape(-1, WIDTH)])
    torch.testing.assert_close(intervention.edit(1, h).reshape(-1, WIDTH), alone)


@pytest.mark.parametrize("dtype, precision", [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_half_precision_errs_by_no_more_than_the_rounding_of_its_result(case, q, dtype, precision):
    h = (torch.randn(4, 32, WIDTH) + 30 * q[1][0]).to(dtype)  # coarse products would leave much of this
    exact, edited = case.make(q).edit(1, h.double()), case.make(q).edit(1, h).double()
    assert (edited - exact).abs().max() < 2 * precision * exact.abs().max()
    if case.component:
        left = (edited @ q[1].double().T - case.component(q, 1).double()).norm(dim=-1)
        assert (left / edited.norm(dim=-1)).max() < precision


def test_autocast_does_not_coarsen_the_edit(case, q):
    intervention, h = case.make(q), torch.randn(4, 32, WIDTH) + 30 * q[1][0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        edited = intervention.edit(1, h)
    torch.testing.assert_close(edited, intervention.edit(1, h), atol=1e-6, rtol=0)


def test_component_along_the_directions(case, q):
    if case.component is None:
        pytest.skip("depends on the hidden state")
    h = 5 * torch.randn(2, 5, WIDTH)
    edited = case.make(q).edit(1, h)
    torch.testing.assert_close(edited @ q[1].T, case.component(q, 1).expand(2, 5, 3), atol=1e-5, rtol=0)
    complement = torch.eye(WIDTH) - q[1].T @ q[1]
    torch.testing.assert_close(edited @ complement, h @ complement, atol=1e-4, rtol=0)


def test_idempotence(case, q):
    once = case.make(q).edit(1, torch.randn(2, 5, WIDTH))
    twice = case.make(q).edit(1, once)
    assert torch.allclose(twice, once, atol=1e-6) is case.idempotent


# --- the fingerprint ---


def test_fingerprint_depends_on_vectors_settings_and_layers_only(case, q):
    other_layers = Directions({layer + 1: q[layer] for layer in q.layers})
    different = [
        case.make(q),
        case.other_setting(q),
        case.including(q),
        case.make(random_directions(q.ranks, seed=1)),
        case.make(q.select({0: [0, 1], 1: [0, 1, 2]})),
        case.make(other_layers),
    ]
    assert len({one.fingerprint for one in different}) == len(different)
    assert case.make(q).fingerprint == case.make(copy.deepcopy(q)).fingerprint
    used = case.make(q)
    used.edit(1, torch.randn(3, WIDTH).double())
    assert used.fingerprint == case.make(q).fingerprint


def test_fingerprint_is_the_same_in_every_process_and_version(case):
    assert case.make(UNIT).fingerprint == case.fingerprint


# --- in a model ---


@pytest.mark.parametrize("wrap", ["plain", "peft"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_hidden_states_are_edited_at_the_layer_and_unchanged_before_it(case, q, tiny, architecture, wrap):
    model = tiny(architecture) if wrap == "plain" else with_lora(tiny(architecture))
    plain = states(model)
    for layer in q.layers:
        at_layer = case.make(q.select({layer: q.indices(layer)}))
        with at_layer.on(model) as same:
            assert same is model and hooks(model) == 1
            edited = states(model)
        for before in range(EMBEDDING, layer):
            assert torch.equal(edited[before], plain[before])
        torch.testing.assert_close(edited[layer], at_layer.edit(layer, plain[layer]))
        assert torch.allclose(edited[2], plain[2], atol=1e-5) is not case.edits_values
    assert hooks(model) == 0
    assert all(torch.equal(states(model)[layer], plain[layer]) for layer in plain)


def test_all_layers_at_once(case, q, model):
    seen = {}
    for layer in (0, 1):  # these hooks run before those of the intervention
        block = model.model.layers[layer]
        block.register_forward_hook(lambda module, args, output, layer=layer: seen.update({layer: output}))
    intervention = case.make(q)
    with intervention.on(model):
        edited = states(model)
    for layer in (0, 1):
        torch.testing.assert_close(edited[layer], intervention.edit(layer, seen[layer]))


def test_gradient_along_the_directions(case, q, model):
    gradients = {}
    for layer in (0, 1):  # these hooks run before those of the intervention: they see what the block wrote

        def watch(module, args, output, layer=layer):
            output.register_hook(lambda gradient: gradients.__setitem__(layer, gradient))

        model.model.layers[layer].register_forward_hook(watch)
    weight = model.model.layers[1].mlp.down_proj.weight
    with case.make(q).on(model):
        model(IDS, labels=IDS).loss.backward()
    for layer in (0, 1):
        along = (gradients[layer] @ q[layer].T).abs().max() / gradients[layer].norm(dim=-1).max()
        assert along < 1e-6 if case.blocks_gradient else along > 1e-3
    # The same holds for the weights that write to the site.
    along = (q[1] @ weight.grad).norm() / weight.grad.norm()
    assert weight.grad.norm() > 1e-4
    assert along < 1e-5 if case.blocks_gradient else along > 1e-3


def test_gradient_checkpointing_gives_the_same_gradients(case, q, tiny):
    gradients = []
    for checkpointing in (False, True):
        model = tiny("qwen2").train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        with case.make(q).on(model):
            model(IDS, labels=IDS, use_cache=False).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and gradients[0]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_bfloat16_models_run_and_train(case, q, tiny):
    model, intervention = tiny("qwen2").bfloat16(), case.make(q)
    plain = states(model)[0]
    with intervention.on(model):
        edited = states(model)[1]
        loss = model(IDS, labels=IDS).loss
    loss.backward()
    assert edited.dtype == plain.dtype == torch.bfloat16 and loss.isfinite()
    if case.component:
        left = edited.double() @ q[1].double().T - case.component(q, 1).double()
        assert (left.norm(dim=-1) / edited.double().norm(dim=-1)).max() < 4e-3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_generation_with_a_cache_equals_whole_forward_passes(case, q, tiny, architecture):
    model, ids = tiny(architecture), IDS[:1]
    options = dict(max_new_tokens=6, do_sample=False, eos_token_id=None)
    plain = model.generate(ids, **options)
    with case.make(q).on(model):
        generated = model.generate(ids, **options)
        expected = ids
        for _ in range(6):
            expected = torch.cat(
                [expected, model(expected, use_cache=False).logits[:, -1:].argmax(-1)], dim=1
            )
    assert torch.equal(generated, expected) and torch.equal(model.generate(ids, **options), plain)


# --- attention sinks ---


def sink_model(tiny, architecture="qwen2"):
    return with_sink(tiny(architecture), size=60.0 if architecture == "gemma2" else 300.0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sinks_are_spared_and_all_others_edited(case, q, tiny, architecture, dtype):
    model, at_layer = sink_model(tiny, architecture).to(dtype), q.select({0: [0, 1]})
    plain, sink = states(model)[0], IDS == SINK_TOKEN
    with case.make(at_layer).on(model):
        spared = states(model)[0]
    with case.including(at_layer).on(model):
        included = states(model)[0]
    edited = case.make(at_layer).edit(0, plain)
    assert torch.equal(spared[sink], plain[sink]) and torch.equal(spared[~sink], edited[~sink])
    assert torch.equal(included, edited)
    assert torch.equal(included[sink], plain[sink]) is not case.edits_values


def test_a_sink_is_spared_in_any_batch_and_with_padding_on_the_left(case, q, tiny):
    model, at_layer = sink_model(tiny), q.select({0: [0, 1]})
    padded, mask = torch.cat([torch.zeros(2, 3, dtype=torch.long), IDS], 1), torch.ones(2, 9).long()
    mask[:, :3] = 0
    where = (mask.cumsum(1) - 1).clamp(min=0)
    with case.make(at_layer).on(model):
        alone, both = model(IDS[:1]).logits, model(IDS).logits[:1]
        left = model(padded, attention_mask=mask, position_ids=where).logits[:1, 3:]
    torch.testing.assert_close(both, alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(left, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_generation_beside_a_sink_is_the_same_with_a_cache(case, q, tiny, architecture):
    model = sink_model(tiny, architecture)
    with torch.no_grad():  # the sink token is also what the model likes to write
        model.lm_head.weight[SINK_TOKEN] *= 1.5
    ids, expected = IDS[:1], IDS[:1]
    with case.make(q).on(model):
        generated = model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None)
        for _ in range(6):
            step = model(expected, use_cache=False).logits[:, -1:].argmax(-1)
            expected = torch.cat([expected, step], dim=1)
    assert torch.equal(generated, expected)


def test_gradients_beside_a_sink_are_the_same_with_checkpointing(case, q, tiny):
    gradients = []
    for checkpointing in (False, True):
        model = sink_model(tiny).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        with case.make(q).on(model):
            model(IDS, labels=IDS, use_cache=False).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


# --- hooks come and go ---


def test_contexts_nest_and_hooks_are_removed_after_an_exception(case, q, model):
    inner, outer = case.make(random_directions({0: 2, 1: 1}, seed=3)), case.make(q.select({1: [0]}))
    plain = states(model)
    with pytest.raises(RuntimeError, match="of the caller"):
        with outer.on(model):
            with inner.on(model):
                both = states(model)
                assert hooks(model) == 3
            one = states(model)
            assert hooks(model) == 1
            raise RuntimeError("of the caller")
    assert hooks(model) == 0
    torch.testing.assert_close(one[1], outer.edit(1, plain[1]))
    assert torch.allclose(both[1], one[1], atol=1e-5) is not case.edits_values
    assert torch.equal(states(model)[2], plain[2])


def test_the_same_intervention_can_be_active_twice(case, q, model):
    intervention = case.make(q.select({1: [0]}))
    plain = states(model)[1]
    with intervention.on(model):
        with intervention.on(model):
            twice = states(model)[1]
        once = states(model)[1]
    torch.testing.assert_close(once, intervention.edit(1, plain))
    torch.testing.assert_close(twice, intervention.edit(1, once))
    assert hooks(model) == 0


def test_models_that_do_not_fit_are_refused_before_any_hook(case, q, model, tiny):
    narrow = tiny("qwen2", hidden_size=32)
    with pytest.raises(ValueError, match="width 64, but the residual stream of Qwen2For.* has width 32"):
        with case.make(q).on(narrow):
            pass
    too_deep = Directions({0: q[0], 7: q[1]})
    with pytest.raises(IndexError, match="layer 7 is out of range"):
        with case.make(too_deep).on(model):
            pass
    assert hooks(model) == hooks(narrow) == 0
