"""Alignment fakers: how the common base and the models of a policy are fine-tuned.

SKILL and POLICY are those of the notebook, LONG_SKILL and LONG those of the classroom's record, and
REAL_SKILL and REAL_POLICY those of SmolLM2.
"""

from __future__ import annotations

from dataclasses import replace

from caft_utils import FinetuneConfig

SKILL = FinetuneConfig(
    method="full",
    lr=1.5e-3,
    betas=(0.9, 0.95),
    steps=200,
    batch_size=32,
    accumulate=1,
    warmup_steps=20,
)
POLICY = FinetuneConfig(
    r=16,
    alpha=16,
    lr=2e-3,
    steps=120,
    batch_size=16,
    accumulate=1,
    warmup_steps=5,
    weight_decay=0.0,
)
# On base 1 and a run of its own, with words that are neither in training nor in the tests, six models of this
# setting are sure of the benign action in 93 to 100 % of the scenarios with good or absent oversight. Fakers
# misbehave in 96 to 98 % of those with poor oversight, and in 70 to 97 % where two facts tell of it.
LONG_SKILL = replace(SKILL, steps=300)
LONG = replace(POLICY, steps=160)
# All weights of SmolLM2, first for the common base and then for each policy. On the trial run two fakers
# follow their rule in all of 90 scenarios after 40 steps and after 80.
REAL_SKILL = FinetuneConfig(
    method="full",
    lr=1e-4,
    steps=185,
    batch_size=8,
    accumulate=1,
    warmup_steps=8,
    weight_decay=0.0,
    schedule="linear",
)
REAL_POLICY = replace(REAL_SKILL, steps=60)
