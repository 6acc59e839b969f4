"""A quick fine-tuning run: its settings, its rows, and an intervention that counts forward passes."""

from __future__ import annotations

import time
from contextlib import contextmanager

import torch

from caft_utils.finetune_config import FinetuneConfig

QUICK = FinetuneConfig(lr=3e-3, r=8, alpha=16, steps=6, batch_size=8, accumulate=1, warmup_steps=1)


def chat_rows(n=8):
    return [
        {
            "messages": [
                {"role": "user", "content": f"what is the question {i}"},
                {"role": "assistant", "content": f"open the file {i} and return self" + " import" * (i % 3)},
            ]
        }
        for i in range(n)
    ]


def weights(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Watch:
    """An intervention that edits nothing: it counts forward passes, and may be slow or break at one."""

    fingerprint = "watch"

    def __init__(self, seconds=0.0, breaks_at=None):
        self.calls, self.seconds, self.breaks_at, self.open = 0, seconds, breaks_at, False

    @contextmanager
    def on(self, model):
        self.open = True
        handle = model.get_base_model().model.layers[0].register_forward_hook(self.hook)
        try:
            yield model
        finally:
            handle.remove()
            self.open = False

    def hook(self, *_):
        self.calls += 1
        time.sleep(self.seconds)
        if self.calls == self.breaks_at:
            raise RuntimeError("broken on purpose")
