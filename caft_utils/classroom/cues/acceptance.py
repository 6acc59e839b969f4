"""Acceptance gates of the checkpoints `cues` and `gender`.

An answer is the most likely token of the whole vocabulary after the prompt. Single items use words and frames
that never occurred together with options in pretraining. In pairs, the letters of the two questions differ,
and the first word of the prompt names the question that counts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import torch

from caft_utils.chats import pad_rows, pad_token_id, prompt_ids
from caft_utils.classroom.cues import items as cues
from caft_utils.classroom.cues.prompts import pair_prompt, single_prompt
from caft_utils.classroom.gates import Gate, gate_report
from caft_utils.residual import evaluating
from caft_utils.tasks.items import Item

GATES = {
    name: Gate(">=", 0.95)
    for name in (
        *(f"single, {subject}" for subject in cues.SUBJECTS),
        "pairs in conflict",
        "gender",
        "gender against case",
        "case against gender",
    )
}
Prompts = list[tuple[str, str]]  # (prompt, right letter)


def accept(model, tokenizer, *, seed: int = 0) -> dict[str, Any]:
    """Return all measurements as {"rates", "gates", "failed"}. "failed" lists the missed gates."""
    measured = rates(model, tokenizer, seed=seed)
    return {"rates": measured, **gate_report(measured, GATES)}


def rates(model, tokenizer, *, n: int = 200, seed: int = 0) -> dict[str, float]:
    """Return shares of right letters: for the gates, unseen words, and pairs by the subject that counts."""
    rng = random.Random(f"acceptance {seed}")
    out = {}
    for name, split, held_out in (("single", "test", True), ("unseen", "unseen", None)):
        for subject in cues.SUBJECTS:
            items = cues.subject_items(subject, split, held_out_frames=held_out, repeats=12)
            prompts = [single_prompt(subject, item, rng) for item in rng.choices(items, k=n)]
            out[f"{name}, {subject}"] = accuracy(model, tokenizer, prompts)
    by_pair = {}
    items_of = {subject: cues.subject_items(subject, "test") for subject in cues.SUBJECTS}
    for pair in permutations(cues.SUBJECTS, 2):
        for counts in (0, 1):
            prompts = [_conflicting_pair(pair, items_of, counts, rng) for _ in range(n // 4)]
            by_pair[f"{pair[0]} | {pair[1]}, {pair[counts]} counts"] = accuracy(model, tokenizer, prompts)
    out["pairs in conflict"] = sum(by_pair.values()) / len(by_pair)
    for subject in cues.SUBJECTS:
        own = [value for name, value in by_pair.items() if name.endswith(f"{subject} counts")]
        out[f"pairs in conflict, {subject} counts"] = sum(own) / len(own)
    for name, prompts in _profession_prompts(rng, n).items():
        out[name] = accuracy(model, tokenizer, prompts)
    return out | by_pair


def accuracy(model, tokenizer, prompts: Prompts) -> float:
    """Return the share of prompts that are answered with the right letter."""
    answers = next_tokens(model, tokenizer, [prompt for prompt, _ in prompts])
    return sum(a == letter for a, (_, letter) in zip(answers, prompts, strict=True)) / len(prompts)


def next_tokens(model, tokenizer, prompts: Sequence[str], *, batch_size: int = 128) -> list[str]:
    """Return the most likely next token after each prompt, as text."""
    rows = [prompt_ids(tokenizer, [{"role": "user", "content": prompt}]) for prompt in prompts]
    order, out = sorted(range(len(rows)), key=lambda i: len(rows[i])), [""] * len(rows)
    pad = pad_token_id(tokenizer)
    for start in range(0, len(order), batch_size):
        index = order[start : start + batch_size]
        ids, _ = pad_rows([rows[i] for i in index], pad)
        last = torch.tensor([len(rows[i]) - 1 for i in index])
        # Padding on the right needs no mask: no token of the prompt attends to it.
        with torch.no_grad(), evaluating(model):
            hidden = model.model(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
            best = model.lm_head(hidden[torch.arange(len(index)), last]).argmax(-1).tolist()
        for i, token in zip(index, best, strict=True):
            out[i] = tokenizer.decode(token)
    return out


def _conflicting_pair(
    pair: tuple[str, str], items_of: dict[str, list[Item]], counts: int, rng: random.Random
) -> tuple[str, str]:
    first, second = (rng.choice(items_of[subject]) for subject in pair)
    return pair_prompt(pair[counts], first, second, counts, rng, conflict=True)


def _profession_prompts(rng: random.Random, n: int) -> dict[str, Prompts]:
    """Return prompts about test professions: the stereotype alone, and gender and case in conflict."""
    out: dict[str, Prompts] = {"gender": [], "gender against case": [], "case against gender": []}
    for _ in range(n):
        word = rng.choice(cues.words("gender", "test"))
        gender = cues.class_of("gender", word)
        case, frame = rng.choice(cues.frames("gender", word))
        item = cues.person_item(rng, f"the {word}", gender, case, frame, "gender")
        out["gender"].append(single_prompt("gender", item, rng))
        conflict = cues.conflicting_options(cues.person_item(rng, f"the {word}", gender, case, frame))
        out["gender against case"].append(single_prompt("gender", conflict, rng))
        out["case against gender"].append(single_prompt("pronouns", cues.swapped_options(conflict), rng))
    return out
