"""A streaming histogram equals one of all values at once."""

from __future__ import annotations

import pytest
import torch

from caft_utils.interpret.examples.histogram import BINS, StreamingHistogram


def test_growing_bins_equal_bins_made_with_all_values_known():
    torch.manual_seed(0)
    bins, scales = StreamingHistogram(2), [0.01, 0.3, 0.2, 5.0, 40.0]
    values = [torch.randn(50, 2) * scale * torch.tensor([1.0, 1e-4]) for scale in scales]
    for part in values:
        bins.add(part)
    for i in range(2):
        edge, column = float(bins.edge[i]), torch.cat(values)[:, i]
        assert bins.counts[i].tolist() == torch.histc(column, BINS, -edge, edge).long().tolist()
        assert edge / 2 < column.abs().max() <= edge


@pytest.mark.parametrize("size", [1, 7, 400])
def test_bins_do_not_depend_on_the_order_even_for_values_on_their_edges(size):
    generator = torch.Generator().manual_seed(0)
    edges = torch.arange(-20, 21)[:, None] / 20 * 2.0 ** torch.arange(-3, 5)
    near = [torch.nextafter(edges, torch.tensor(sign * torch.inf)) for sign in (-1, 1)]
    values = torch.cat([edges, *near]).flatten()[:, None]
    bins = StreamingHistogram(1)
    for part in values[torch.randperm(len(values), generator=generator)].split(size):
        bins.add(part)
    assert float(bins.edge) == 32  # the largest value, 16 and a little, is below it
    want = (values * (20 / 32)).floor().long().flatten() + 20
    assert bins.counts[0].tolist() == want.bincount(minlength=BINS).tolist()
