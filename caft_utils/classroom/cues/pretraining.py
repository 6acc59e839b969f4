"""Pretraining of the cues checkpoint, and of the one for gender, which goes on from it.

Why the attention pattern. In a prototype with full attention everywhere, block 0 already compared the raw
embeddings of options and questions, and ablation at block outputs came too late. Here the lowest blocks see a
window of four tokens: an option cannot see its question, and each word has to be told apart where it stands
(a plural, a football player, the case of a gap) and carried up in the residual stream to the blocks with full
attention, which compare. `cues-full` is the twin without windows.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn import functional as F

from caft_utils.classroom.cues import corpus as cues_corpus
from caft_utils.classroom.personas.pretraining import Schedule, _optimizers

WINDOW = 4
WINDOWED = {"cues": 2, "cues-full": 0}  # number of lowest blocks with a window
SIZES = dict(
    hidden_size=128, intermediate_size=256, num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=4
)


@dataclass(frozen=True)
class CueSchedule:
    """Warm up, hold, then fall linearly to `floor`; `rows`: documents a step."""

    steps: int = 2400
    rows: int = 96
    lr: float = 3e-3
    warmup_steps: int = 100
    hold: float = 0.5
    floor: float = 0.02
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    max_grad_norm: float = 1.0
    seed: int = 0

    persons = cues_corpus.PERSONS
    factor = Schedule.factor

    def progress(self, step: int, steps: int) -> float:
        """Where in the curriculum a step is."""
        return step / steps


@dataclass(frozen=True)
class GenderSchedule(CueSchedule):
    """Some more steps with the final mixture, in which `quiz:` stands over items about persons now."""

    steps: int = 150
    lr: float = 1e-3
    warmup_steps: int = 20
    hold: float = 0.3
    seed: int = 3

    persons = cues_corpus.UNSETTLED

    def progress(self, step: int, steps: int) -> float:
        return 1.0


def new_model(architecture: str, vocab_size: int, seed: int = 0):
    """A freshly initialised Qwen2ForCausalLM. architecture: cues, or its twin cues-full."""
    import transformers as hf

    if architecture not in WINDOWED:
        raise ValueError(f"unknown architecture {architecture!r}; choose one of {', '.join(WINDOWED)}")
    low, depth = WINDOWED[architecture], SIZES["num_hidden_layers"]
    common = dict(SIZES, vocab_size=vocab_size, max_position_embeddings=512, tie_word_embeddings=True)
    common |= dict(pad_token_id=0, bos_token_id=None, eos_token_id=2)
    if low:
        types = ["sliding_attention"] * low + ["full_attention"] * (depth - low)
        common |= dict(use_sliding_window=True, sliding_window=WINDOW, layer_types=types)
    torch.manual_seed(seed)
    return hf.AutoModelForCausalLM.from_config(hf.Qwen2Config(**common))


def batches(tokenizer, schedule: CueSchedule):
    """(ids, learn) of the documents of each step, drawn as the curriculum is at that step."""
    rng, encode = random.Random(schedule.seed), cues_corpus.encoder(tokenizer)
    for step in range(schedule.steps):
        progress = schedule.progress(step, schedule.steps)
        drafts = (cues_corpus.draft(rng, progress, schedule.persons) for _ in range(schedule.rows))
        yield sorted((encode(made) for made in drafts), key=lambda row: len(row[0]))


def corpus_hash(tokenizer, schedule: CueSchedule, documents: int = 5000) -> str:
    """sha256 of documents drawn with this seed over the whole curriculum."""
    rng, encode = random.Random(schedule.seed), cues_corpus.encoder(tokenizer)
    shares = (schedule.progress(number, documents) for number in range(documents))
    rows = [encode(cues_corpus.draft(rng, share, schedule.persons)) for share in shares]
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def _loss(model, rows: list[tuple[list[int], list[bool]]]) -> torch.Tensor:
    """Sum of the cross-entropy of the learned tokens; padding is on the right, so it needs no mask."""
    length = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([own + [0] * (length - len(own)) for own, _ in rows])
    learn = torch.tensor([own + [False] * (length - len(own)) for _, own in rows])[:, 1:]
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    return F.cross_entropy(model.lm_head(hidden[learn]).float(), ids[:, 1:][learn], reduction="sum")


def pretrain(
    architecture: str,
    tokenizer,
    schedule: CueSchedule,
    *,
    model: Any = None,
    progress: bool = True,
    watch: Callable[[int, Any], None] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Train a new model on the CPU; returns it in eval mode, with a record of recipe, corpus and loss.

    model: goes on with this one, with new optimizers.
    watch: called with (step, model) before every step, for example to look on.
    """
    from tqdm.auto import tqdm

    if model is None:
        model = new_model(architecture, len(tokenizer), schedule.seed)
    model.__dict__.pop("caft_id", None)  # the name of weights that are going to change
    model.train().requires_grad_()
    optimizers = _optimizers(model, schedule)
    curve, tokens, started = [], 0, time.monotonic()
    plan = tqdm(
        batches(tokenizer, schedule),
        desc=f"pretraining {architecture}",
        total=schedule.steps,
        disable=not progress,
        mininterval=5,
    )
    for step, rows in enumerate(plan):
        if watch is not None:
            watch(step, model)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = schedule.lr * schedule.factor(step, schedule.steps)
        count, total = sum(sum(learn[1:]) for _, learn in rows), 0.0
        size = -(-len(rows) // 4)
        for start in range(0, len(rows), size):  # documents of like length together: less padding
            loss = _loss(model, rows[start : start + size]) / count
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.max_grad_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        tokens += sum(len(ids) for ids, _ in rows)
        if step % 50 == 0:
            curve.append([step, round(total, 4)])
    record = {
        "architecture": architecture,
        "schedule": asdict(schedule),
        "corpus_sha256": corpus_hash(tokenizer, schedule),
        "tokens": tokens,
        "loss": curve,
        "seconds": round(time.monotonic() - started),
    }
    return model.eval(), record
