"""The best windows of a stream are the best of all, whatever the order."""

from __future__ import annotations

import torch

from caft_utils.interpret.examples.running_topk import RunningTopK
from caft_utils.interpret.examples.streaming import Spans


def test_best_of_a_stream_are_the_best_of_all_whatever_the_order():
    generator = torch.Generator().manual_seed(0)
    rows, k, n = 60, 30, 4
    scores = torch.randn(rows, k, generator=generator).mul(2).round()
    scores.clamp_(max=0)  # many are equal, and some zeros negative
    scores[torch.rand(rows, k, generator=generator) < 0.3] = -torch.inf
    scores[:, 0] = -torch.inf
    want = [
        [row for _, row in sorted((-float(s), row) for row, s in enumerate(scores[:, i]) if s > -torch.inf)]
        for i in range(k)
    ]
    for size in (1, 7, 60):
        best, order = RunningTopK(k, n, 2), torch.randperm(rows, generator=generator)
        for part in order.split(size):
            start = 3 * torch.arange(len(part))  # three tokens a row
            span = torch.stack([start, start + 3], 1)
            best.offer(slice(0, k), torch.zeros(3 * size, k), scores[part], Spans(part, start, span, span))
        got = [[window.row for window in best.windows(i)] for i in range(k)]
        assert got == [rows[:n] for rows in want]
