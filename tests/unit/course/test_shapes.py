"""Full shapes: the published numbers of parameters, random weights, and rows of random tokens."""

from __future__ import annotations

import pytest
import torch

from caft_utils.course.shapes import Shape, all_shapes, random_chats, random_model, shape


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("0.5B", 494_032_768),
        ("1.5B", 1_543_714_304),
        ("7B", 7_615_616_512),
        ("32B", 32_763_876_352),
        ("Mistral-24B", 23_572_403_200),
    ],
)
def test_shapes_have_the_parameters_of_the_published_models(name, parameters):
    model = random_model(shape(name), "meta")
    assert sum(value.numel() for value in model.parameters()) == parameters
    assert {value.dtype for value in model.parameters()} == {torch.bfloat16}
    assert shape(name).layers == shape(name).settings.layers


def test_random_weights_follow_the_seed_and_leave_the_generators_alone():
    state = torch.get_rng_state()
    first, again, other = (random_model(shape("tiny"), dtype="float32", seed=seed) for seed in (0, 0, 1))
    one, two, three = (model.model.layers[2].mlp.up_proj.weight for model in (first, again, other))
    assert torch.equal(one, two) and not torch.equal(one, three)
    assert one.detach().std() == pytest.approx(first.config.initializer_range, rel=0.05)
    assert torch.equal(torch.get_rng_state(), state) and not first.training
    with torch.no_grad():
        assert first(torch.tensor([[5, 6, 7]])).logits.isfinite().all()


def test_random_rows_have_answers_in_their_second_half():
    chats = random_chats(3, 8, 50)
    batch = next(chats.batches(3))
    assert batch.answer.tolist() == [[False] * 4 + [True] * 4] * 3 and batch.attention_mask.all()
    assert (
        chats.fingerprint == random_chats(3, 8, 50).fingerprint != random_chats(3, 8, 50, seed=1).fingerprint
    )
    assert len(chats[:2]) == 2 and batch.input_ids.max() < 50


def test_an_unknown_shape_is_named():
    with pytest.raises(ValueError, match="'70B'.*32B"):
        shape("70B")
    with pytest.raises(ValueError, match="model_type"):
        Shape("Qwen/Qwen2.5-7B-Instruct", {"hidden_size": 8})
    assert set(all_shapes()) >= {"tiny", "0.5B", "7B", "32B"}
