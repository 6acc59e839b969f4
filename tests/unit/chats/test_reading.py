"""Which tokens are read: by name, by position, and what does not fit."""

from __future__ import annotations

import pytest
import torch

from caft_utils.chats import Chats
from caft_utils.chats.reading import key_of_place, where_to_read
from caft_utils.directions import class_contrast, class_means, mean_difference, mean_hidden, pca_of_difference
from caft_utils.residual import stream_activations

HEADER = "<|im_start|>assistant\n"


@pytest.fixture
def chats(tokenizer):
    turns = [["what is the file", "open file", "and you", "self"], ["do with you", "return"]]
    roles = ("user", "assistant") * 2
    rows = [[{"role": r, "content": c} for r, c in zip(roles, turn)] for turn in turns * 3]
    return Chats(tokenizer, [{"messages": messages} for messages in rows])


def read(model, chats, tokens, batch_size=2):
    parts = list(stream_activations(model, chats, [0], tokens=tokens, batch_size=batch_size))
    return sorted((int(r), int(p)) for part in parts for r, p in zip(part.row, part.position))


def test_last_prompt_is_the_token_before_each_answer(model, chats):
    found = read(model, chats, "last_prompt")
    assert [row for row, _ in found] == [0, 0, 1, 2, 2, 3, 4, 4, 5]
    for row, position in found:
        example = chats[row]
        assert not example.answer[position] and example.answer[position + 1]
        assert chats.tokenizer.decode(example.input_ids[: position + 1]).endswith(HEADER)


def test_given_positions_are_read_whatever_the_batch(model, chats):
    given = [[3, 0], [2], [], [1], [0, 5], [4]]
    expected = [(row, p) for row, positions in enumerate(given) for p in sorted(positions)]
    assert read(model, chats, given, 2) == read(model, chats, given, 6) == expected
    assert read(model, chats, torch.full((6,), 2)) == [(row, 2) for row in range(6)]


def test_every_method_reads_where_it_is_told(model, tiny, chats):
    """The last token of a prompt by name and by position gives the same, and another place something else."""
    tuned, labels = tiny("qwen2", seed=1), ["a", "b"] * 3
    at = [[p for row, p in read(model, chats, "last_prompt") if row == n] for n in range(len(chats))]
    halves = chats[:3], chats[3:]
    methods = [
        lambda t: pca_of_difference(tuned, model, chats, [1], k=2, tokens=t),
        lambda t: mean_difference(tuned, model, chats, [1], tokens=t),
        lambda t: class_means(model, chats, labels, [1], tokens=t, min_contrast=1e-3),
    ]
    for method in methods:
        assert method("last_prompt").fingerprint == method(at).fingerprint != method("answer").fingerprint
    pair = class_contrast(model, *halves, [1], tokens=(at[:3], at[3:]))
    assert pair.fingerprint == class_contrast(model, *halves, [1], tokens="last_prompt").fingerprint
    assert torch.equal(*(mean_hidden(model, chats, [1], tokens=tokens)[1] for tokens in ("last_prompt", at)))


def test_positions_enter_the_key_and_names_leave_it_as_it_was(chats):
    assert key_of_place("answer", chats) == {"tokens": "answer"}
    assert key_of_place([1] * 6, chats) == {"tokens": "given", "at": [[1]] * 6}


@pytest.mark.parametrize(
    "tokens, says",
    [
        ("last", "'last_prompt' or positions for each row, got 'last'"),
        ([1, 2], "one entry for each of the 6 rows, got 2 entries"),
        ([0, 1, 99, 0, 0, 0], r"tokens of row 2 \(\d+ tokens\) must be .* at most"),
        ([-1] * 6, "at least 0"),
        ([[0.5]] * 6, "whole number"),
        (3, "one entry for each of the 6 rows, got 3"),
    ],
)
def test_what_does_not_fit_is_refused(chats, tokens, says):
    with pytest.raises(ValueError, match=says):
        where_to_read(tokens, chats)
