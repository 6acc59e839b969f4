"""The residual stream: captures equal what transformers reports, edits reach every forward pass."""

from __future__ import annotations

import pytest
import torch
from helpers.models import ARCHITECTURES, IDS, hooks, states, with_lora
from torch import nn

from caft_utils import residual
from caft_utils.chats import Chats
from caft_utils.residual import (
    EMBEDDING,
    capture,
    decoder_blocks,
    depth,
    edit,
    evaluating,
    has_hooks,
    seeded,
    site,
    stream_activations,
    width,
)

TEXTS = ["open the file and return", "what is the question you are to do with", "import", "def of the system"]


@pytest.fixture
def chats(tokenizer):
    turn = [{"role": "user", "content": "what is"}, {"role": "assistant", "content": "import self and open"}]
    return Chats(tokenizer, [{"text": text} for text in TEXTS] + [{"messages": turn}])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_stream_equals_hidden_states_of_transformers(tiny, chats, architecture):
    model = tiny(architecture)
    layers = [EMBEDDING, 0, 1, 2]
    found = {}
    for part in stream_activations(model, chats, layers, batch_size=2):
        for i, (row, position) in enumerate(zip(part.row.tolist(), part.position.tolist())):
            found[row, position] = {layer: part.hidden[layer][i] for layer in layers}
    assert set(found) == {(row, t) for row, e in enumerate(chats) for t in range(len(e.input_ids))}
    for row, example in enumerate(chats):  # one by one, without padding, is the truth
        with torch.no_grad():
            states = model(torch.tensor([example.input_ids]), output_hidden_states=True).hidden_states
            for t in range(len(example.input_ids)):
                for layer in (EMBEDDING, 0, 1):
                    state = states[layer + 1][0, t]
                    torch.testing.assert_close(found[row, t][layer], state, rtol=1e-4, atol=1e-5)
                # transformers reports its last hidden state after the final norm
                last = model.model.norm(found[row, t][2])
                torch.testing.assert_close(last, states[3][0, t], rtol=1e-4, atol=1e-5)


def test_stream_of_answer_tokens(model, chats):
    got = {
        (row, position)
        for part in stream_activations(model, chats, [0], tokens="answer", batch_size=2)
        for row, position in zip(part.row.tolist(), part.position.tolist())
    }
    assert got == {(row, t) for row, e in enumerate(chats) for t, answer in enumerate(e.answer) if answer}
    assert not all(chats[4].answer)


def test_stream_leaves_the_model_free_between_batches(model, chats):
    stream = stream_activations(model, chats, [1], batch_size=1)
    first = next(stream)
    assert set(first.row.tolist()) == {4} and first.hidden[1].shape == (len(chats[4].input_ids), 64)
    assert hooks(model) == 0
    assert model(torch.tensor([[5, 6]])).logits.shape == (1, 2, 384)
    assert not first.hidden[1].requires_grad


def test_stream_casts_half_precision_to_float32(model, chats):
    part = next(stream_activations(model.bfloat16(), chats, [EMBEDDING, 1]))
    assert {h.dtype for h in part.hidden.values()} == {torch.float32}


def test_stream_switches_dropout_off_and_training_mode_back_on(tiny, chats):
    model = tiny("qwen2", attention_dropout=0.5)
    want = next(stream_activations(model, chats, [2])).hidden[2]
    model.train()
    model.lm_head.eval()
    assert torch.equal(next(stream_activations(model, chats, [2])).hidden[2], want)
    assert model.training and model.model.layers[0].self_attn.training and not model.lm_head.training


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layers, expected", [([-1], []), ([0], [0]), ([-1, 1], [0, 1]), ([2, 0], [0, 1, 2])])
def test_no_block_after_the_last_site_runs(tiny, chats, architecture, layers, expected):
    model = tiny(architecture)
    ran = []
    for number, block in enumerate(decoder_blocks(model)):
        block.register_forward_pre_hook(lambda module, args, number=number: ran.append(number))
    model.lm_head.register_forward_pre_hook(lambda module, args: ran.append("head"))
    next(stream_activations(model, chats, layers))
    assert ran == expected


def test_capture_with_the_whole_forward_pass_gives_logits_and_a_graph(model):
    ids = torch.tensor([[5, 6, 7]])
    want = model(ids).logits
    with capture(model, [0, 2], stop_early=False) as hidden:
        assert torch.equal(model(ids).logits, want)
    assert hidden[2].requires_grad and hidden[0].shape == (1, 3, 64)
    assert torch.equal(model(ids).logits, want) and hooks(model) == 0


def test_capture_goes_on_after_each_forward_and_cleans_up_after_an_exception(model):
    with pytest.raises(RuntimeError, match="the caller's"):
        with capture(model, [1]) as hidden:
            assert model(torch.tensor([[5, 6, 7]])) is None
            first = hidden[1]
            model(torch.tensor([[8, 9, 10]]))
            assert not torch.equal(hidden[1], first)
            raise RuntimeError("the caller's")
    assert hooks(model) == 0 and "forward" not in vars(model)
    assert model(torch.tensor([[5]])).logits is not None


def test_captures_nest(model):
    ids = torch.tensor([[5, 6]])
    with capture(model, [2]) as outer:
        with capture(model, [0]) as inner:
            model(ids)
            assert 0 in inner and 2 not in outer
        model(ids)
        assert 2 in outer
    assert model(ids) is not None


def test_an_error_of_the_model_itself_is_not_swallowed(model):
    with capture(model, [1]), pytest.raises(IndexError):
        model(torch.tensor([[99999]]))


def test_a_peft_model_is_read_with_its_adapter(tiny, chats):
    plain, model = tiny("qwen2"), with_lora(tiny("qwen2"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)  # untrained adapters change nothing
    assert depth(model) == 3 and width(model) == 64
    adapted = next(stream_activations(model, chats, [1])).hidden[1]
    with model.disable_adapter():
        off = next(stream_activations(model, chats, [1])).hidden[1]
    torch.testing.assert_close(off, next(stream_activations(plain, chats, [1])).hidden[1])
    assert (adapted - off).abs().max() > 1e-3


def test_a_block_that_returns_a_tuple_is_read(model, chats):
    want = next(stream_activations(model, chats, [1])).hidden[1]
    h = torch.zeros(1, 2, 64)
    assert residual.hidden_of((h, "cache")) is h and residual.hidden_of(h) is h
    block = model.model.layers[1]
    block.register_forward_hook(lambda module, args, output: (output, None))  # what transformers 4 returned
    assert torch.equal(next(stream_activations(model, chats, [1])).hidden[1], want)


# --- edit ---


def test_edit_changes_the_layer_for_everything_after_it(model):
    plain = states(model)
    with edit(model, {1: lambda hidden: 2 * hidden}) as same:
        assert same is model and hooks(model) == 1
        edited = states(model)
    assert torch.equal(edited[0], plain[0]) and torch.equal(edited[1], 2 * plain[1])
    assert not torch.allclose(edited[2], plain[2]) and hooks(model) == 0
    assert torch.equal(states(model)[2], plain[2])


def test_edits_of_several_layers_and_of_none(model):
    plain = states(model)
    with edit(model, {}):
        assert torch.equal(states(model)[2], plain[2])
    with edit(model, {EMBEDDING: torch.zeros_like, 2: lambda hidden: hidden + 1}):
        edited = states(model)
    assert not edited[EMBEDDING].any() and not torch.equal(edited[2], plain[2] + 1)


def test_edits_nest_in_order(model):
    plain = states(model)[1]
    with edit(model, {1: lambda hidden: hidden + 1}), edit(model, {1: lambda hidden: hidden * 3}):
        torch.testing.assert_close(states(model)[1], 3 * (plain + 1))
    assert hooks(model) == 0


def test_an_edit_sees_earlier_hooks_and_passes_on_gradients(model):
    scale = torch.tensor(2.0, requires_grad=True)
    with capture(model, [0, 1], stop_early=False) as before, edit(model, {0: lambda hidden: scale * hidden}):
        model(IDS, labels=IDS).loss.backward()
    assert scale.grad.abs() > 0 and set(before) == {0, 1}


def test_edit_goes_through_a_peft_wrapper(model):
    wrapped = with_lora(model)
    with edit(wrapped, {1: torch.zeros_like}):
        assert not states(wrapped)[1].any()
    assert states(wrapped)[1].any()


@pytest.mark.parametrize("layers", [[1, 3], [3], [-2]])
def test_edit_of_a_missing_layer_hooks_nothing(model, layers):
    with pytest.raises(IndexError, match="out of range"):
        with edit(model, dict.fromkeys(layers, torch.zeros_like)):
            pass
    assert hooks(model) == 0


def test_edits_end_after_an_error_of_the_edit_or_the_caller(model):
    def fail(hidden):
        raise ArithmeticError("of the edit")

    with pytest.raises(ArithmeticError), edit(model, {0: torch.zeros_like, 1: fail}):
        model(IDS)
    assert hooks(model) == 0
    with pytest.raises(RuntimeError), edit(model, {1: torch.zeros_like}):
        raise RuntimeError("of the caller")
    assert hooks(model) == 0


def test_a_block_that_returns_a_tuple_is_edited_in_its_first_entry(model):
    outputs = []
    block = model.model.layers[1]
    block.register_forward_hook(
        lambda module, args, output: (output, "cache")
    )  # what transformers 4 returned
    with edit(model, {1: torch.zeros_like}):
        block.register_forward_hook(lambda module, args, output: outputs.append(output))
        with pytest.raises(Exception):  # noqa: B017 - transformers 5 does not continue from a tuple
            model(IDS)
    hidden, cache = outputs[0]
    assert cache == "cache" and not hidden.any()


# --- evaluating ---


def modes(model) -> list[bool]:
    return [module.training for module in model.modules()]


def test_evaluating_restores_the_mode_of_every_module(model):
    model.train()
    model.model.layers[1].eval()  # a frozen submodule
    before = modes(model)
    with evaluating(model):
        assert not any(modes(model))
    assert modes(model) == before and len(set(before)) == 2


def test_evaluating_restores_modes_after_an_exception(model):
    model.train()
    model.lm_head.eval()
    before = modes(model)
    with pytest.raises(RuntimeError), evaluating(model):
        raise RuntimeError
    assert modes(model) == before


def test_evaluating_nests_and_leaves_a_model_in_eval_mode(model):
    model.eval()
    with evaluating(model), evaluating(model):
        pass
    assert not any(modes(model))
    model.train()
    with evaluating(model):
        with evaluating(model):
            pass
        assert not any(modes(model))
    assert all(modes(model))


# --- seeded ---


def test_seeded_repeats_and_restores_all_generators():
    import random

    import numpy as np

    def draw():
        return torch.rand(1).item(), np.random.rand(), random.random()

    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    expected = draw()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    inside = []
    for seed in (0, 0, 1):
        with seeded(seed, torch.device("cpu")):
            inside.append(draw()[0])
    assert inside[0] == inside[1] != inside[2]
    with pytest.raises(RuntimeError), seeded(3, torch.device("cpu")):
        draw()
        raise RuntimeError
    assert draw() == expected


# --- errors ---


def test_errors_say_what_to_do(model, chats):
    with pytest.raises(IndexError, match=r"layer 3 .*Qwen2ForCausalLM has layers 0 to 2, and -1"):
        next(stream_activations(model, chats, [1, 3]))
    with pytest.raises(IndexError, match="layer -2"):
        site(model, -2)
    with pytest.raises(ValueError, match="no layers"):
        next(stream_activations(model, chats, []))
    with pytest.raises(ValueError, match="no rows"):
        next(stream_activations(model, chats[:0], [1]))
    with pytest.raises(ValueError, match="'all', 'answer', 'last_prompt' or"):
        next(stream_activations(model, chats, [1], tokens="every"))
    with pytest.raises(TypeError, match="Linear has no list `layers`"):
        depth(nn.Linear(2, 2))
    assert hooks(model) == 0


def test_hooks_are_seen_while_they_are_there(model):
    ids = torch.tensor([[5, 6, 7]])
    assert not has_hooks(model)
    with edit(model, {1: torch.zeros_like}):
        assert has_hooks(model)
    with capture(model, [0]):
        assert has_hooks(model)
    handle = model.register_forward_pre_hook(lambda module, args: None)
    assert has_hooks(model)
    handle.remove()
    model(ids, output_hidden_states=True)  # transformers leaves hooks of its own
    assert not has_hooks(model)


def test_a_replaced_forward_counts_as_a_hook(model):
    block = model.model.layers[1]
    block.forward = lambda hidden, **_: hidden
    assert has_hooks(model)
    del block.forward
    assert not has_hooks(model)


def test_hidden_states_of_transformers_are_edited_ones_whenever_they_were_first_asked_for(model):
    """transformers leaves its recording hooks in place, which would run before those registered later."""
    ids = torch.tensor([[5, 6, 7]])

    def second_state():
        with torch.no_grad():
            return model(input_ids=ids, output_hidden_states=True).hidden_states[2]

    plain = second_state()
    with edit(model, {1: lambda hidden: hidden * 0}):
        assert second_state().abs().max() == 0
        with edit(model, {1: lambda hidden: hidden + 1}):
            assert second_state().eq(1).all()
    torch.testing.assert_close(second_state(), plain)
