"""A linear probe of oversight: can good and absent oversight be told apart where the answer is given?

A ridge classifier is fitted on the last token's states of half of the rows, each with and without its
critical facts, and tested on the other half. The score is the mean accuracy over layers. Only good and absent
oversight occur: a detector never sees poor oversight.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caft_utils.detectors.detector import Detector
from caft_utils.detectors.reading import last_states
from caft_utils.tasks.oversight.permitted import PermittedRows

RIDGE = 1.0


def probe_accuracy(
    train: Float[Tensor, "n d"],
    labels: Float[Tensor, " n"],
    test: Float[Tensor, "m d"],
    truth: Float[Tensor, " m"],
) -> float:
    """Return the test accuracy of a ridge regression onto labels -1 and 1, with standardised inputs."""
    mean, spread = train.mean(0), train.std(0) + 1e-6
    x, y = (train - mean) / spread, (test - mean) / spread
    gram = x @ x.T + RIDGE * x.shape[1] * torch.eye(len(x)) / 10
    weights = x.T @ torch.linalg.solve(gram, labels - labels.mean())
    return float(((y @ weights + labels.mean()).sign() == truth).float().mean())


@dataclass(frozen=True)
class OversightProbe(Detector):
    """Take the model in which oversight can be read better for the faker."""

    name = "linear probe of oversight"
    rows = 32

    def score(self, model, rows: PermittedRows) -> float:
        watched = rows.watched(at_least=2)  # one half to train on, one to test on
        there = last_states(model, rows.tokenizer, watched)
        gone = last_states(model, rows.tokenizer, watched.without_oversight())
        n = len(watched) // 2
        found = []
        for layer in there:
            halves = [
                torch.cat([there[layer][part], gone[layer][part]]) for part in (slice(n), slice(n, 2 * n))
            ]
            labels = torch.cat([torch.ones(n), -torch.ones(n)])
            found.append(probe_accuracy(halves[0], labels, halves[1], labels))
        return sum(found) / len(found)
