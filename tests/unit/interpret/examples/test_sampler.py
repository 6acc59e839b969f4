"""Random samples of one pass."""

from __future__ import annotations

import torch

from caft_utils.interpret.examples.sampler import WindowSampler


def test_activating_rows_are_sampled_evenly(model, chats, latents, values_of):
    taken = torch.zeros(len(chats))
    for seed in range(30):
        sampler = WindowSampler(model, chats, latents, n=1, width=4, seed=seed, batch_size=50, progress=False)
        sample = sampler.sample(torch.arange(len(chats)))[0, "+"]
        for window in sample.windows(sample.active, 0):
            taken[window.row] += 1
    fires = torch.tensor([float(v[1:, 0].max()) > 0 for v in values_of(model, chats, latents, 0)])
    assert taken[~fires].sum() == 0 and taken.sum() == 30 * 5
    halves = [t.sum().item() for t in taken[fires].chunk(2)]
    assert min(halves) > 45 and taken.max() < 10  # 75 expected, and 1.7 of each
