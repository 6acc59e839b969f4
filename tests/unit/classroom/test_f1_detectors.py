"""Features as detectors of labels."""

from __future__ import annotations

import pytest
import torch

from caft_utils import load
from caft_utils.classroom.f1_detectors import best_f1, best_f1_by_label, f1_at, max_per_message
from caft_utils.classroom.message_labels import LabelledChats
from caft_utils.classroom.personas.labels import labelled_chats
from caft_utils.residual import stream_activations


@pytest.fixture(scope="module")
def text():
    _, tokenizer = load("classroom")
    return labelled_chats(tokenizer, 60)


def test_largest_value_of_each_message(text):
    model, _ = load("classroom")
    part = LabelledChats(text.chats[:3], [m for m in text.messages if m.row < 3])
    got = max_per_message(model, part, 1, lambda h: h[:, :4])
    for row in range(3):
        hidden = next(stream_activations(model, text.chats[row : row + 1], [1])).hidden[1][:, :4]
        for number, message in enumerate(part.messages):
            if message.row == row:
                expected = hidden[max(1, message.start) : message.stop].amax(0)
                torch.testing.assert_close(got[number], expected, rtol=1e-3, atol=1e-4)


def test_f1_of_a_perfect_a_constant_and_a_shifted_detector():
    truth = torch.tensor([True, True, False, False, False, False])
    columns = torch.tensor([[3.0, 2.0, 1.0, 0.0, 0.0, 0.0], [0.0] * 6]).T
    f1, threshold = best_f1(columns, truth)
    assert f1.tolist() == pytest.approx([1.0, 0.5])  # a constant can only detect every message
    assert threshold[0] == 2.0
    assert f1_at(torch.tensor([0.0, 2.0, 2.0, 0, 0, 0]), truth, 2.0) == pytest.approx(0.5)


def test_the_best_f1_is_that_of_trying_every_threshold():
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 8, (30, 5), generator=generator).float()  # with ties
    truth = torch.rand(30, generator=generator) < 0.3
    f1, threshold = best_f1(values, truth)
    for column in range(5):
        tried = [f1_at(values[:, column], truth, t) for t in values[:, column].tolist()]
        assert f1[column].item() == pytest.approx(max(tried))
        assert f1_at(values[:, column], truth, threshold[column].item()) == pytest.approx(max(tried))


def test_a_column_that_is_the_label_detects_it_fully(text):
    villain = text.truth("persona: villain").float()
    columns = torch.stack(
        [villain * 5, 1 - villain, torch.rand(len(villain), generator=torch.Generator().manual_seed(0))],
        dim=1,
    )
    f1 = best_f1_by_label(columns, text)
    assert f1["persona: villain"][0] == 1.0 and f1["persona: villain"][1] < 0.8
    assert f1["domain: pets"].max() < 0.5
