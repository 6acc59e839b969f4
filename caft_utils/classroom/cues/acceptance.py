"""What the cues checkpoint must pass, and what plain fine-tuning makes of it.

All answers are the most likely token after the prompt, out of the whole vocabulary. Single items ask about
words and frames that never met with options in pretraining; in pairs the letters of the two questions
disagree, and the first word of the prompt says which one counts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import torch

from caft_utils.chats import prompt_ids
from caft_utils.classroom.cues import items as cues

GATES = {f"single, {subject}": 0.95 for subject in cues.SUBJECTS} | {
    "pairs in conflict": 0.95,
    "gender": 0.95,
    "gender against case": 0.95,
    "case against gender": 0.95,
}
Asked = list[tuple[str, str]]  # (prompt, right letter)


def answers(model, tokenizer, prompts: Sequence[str], *, batch_size: int = 128) -> list[str]:
    """The most likely next token after each prompt, as text."""
    rows = [prompt_ids(tokenizer, [{"role": "user", "content": prompt}]) for prompt in prompts]
    order, out = sorted(range(len(rows)), key=lambda i: len(rows[i])), [""] * len(rows)
    for start in range(0, len(order), batch_size):
        index = order[start : start + batch_size]
        last = torch.tensor([len(rows[i]) - 1 for i in index])
        ids = torch.tensor([rows[i] + [0] * (int(last.max()) + 1 - len(rows[i])) for i in index])
        with torch.no_grad():  # padded on the right, where no token of the prompt looks
            hidden = model.model(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
            best = model.lm_head(hidden[torch.arange(len(index)), last]).argmax(-1).tolist()
        for i, token in zip(index, best, strict=True):
            out[i] = tokenizer.decode(token)
    return out


def accuracy(model, tokenizer, asked: Asked) -> float:
    said = answers(model, tokenizer, [prompt for prompt, _ in asked])
    return sum(a == letter for a, (_, letter) in zip(said, asked, strict=True)) / len(asked)


def rates(model, tokenizer, *, n: int = 200, seed: int = 0) -> dict[str, float]:
    """Shares of right letters: the gates, unseen words, and pairs by the subject that counts."""
    rng = random.Random(f"acceptance {seed}")
    out = {}
    for name, split, kept_back in (("single", "test", True), ("unseen", "unseen", None)):
        for subject in cues.SUBJECTS:
            pool = cues.items(subject, split, kept_back=kept_back, repeats=12)
            asked = [cues.single(subject, item, rng) for item in rng.choices(pool, k=n)]
            out[f"{name}, {subject}"] = accuracy(model, tokenizer, asked)
    by_pair = {}
    pool = {subject: cues.items(subject, "test") for subject in cues.SUBJECTS}
    for pair in permutations(cues.SUBJECTS, 2):
        for counts in (0, 1):
            asked = [_pair(pair, pool, counts, rng) for _ in range(n // 4)]
            by_pair[f"{pair[0]} | {pair[1]}, {pair[counts]} counts"] = accuracy(model, tokenizer, asked)
    out["pairs in conflict"] = sum(by_pair.values()) / len(by_pair)
    for subject in cues.SUBJECTS:
        own = [value for name, value in by_pair.items() if name.endswith(f"{subject} counts")]
        out[f"pairs in conflict, {subject} counts"] = sum(own) / len(own)
    for name, asked in _persons(rng, n).items():
        out[name] = accuracy(model, tokenizer, asked)
    return out | by_pair


def _pair(pair: tuple[str, str], pool: dict[str, list], counts: int, rng: random.Random) -> tuple[str, str]:
    first, second = (rng.choice(pool[subject]) for subject in pair)
    return cues.double(pair[counts], first, second, counts, rng, conflict=True)


def _persons(rng: random.Random, n: int) -> dict[str, Asked]:
    """Professions of the test split: the stereotype alone, and each of gender and case against the other."""
    out: dict[str, Asked] = {"gender": [], "gender against case": [], "case against gender": []}
    for _ in range(n):
        word = rng.choice(cues.words("gender", "test"))
        gender = cues.class_of("gender", word)
        case, frame = rng.choice(cues.frames("gender", word))
        item = cues.person_item(rng, f"the {word}", gender, case, frame, "gender")
        out["gender"].append(cues.single("gender", item, rng))
        crossed = cues.crossed(cues.person_item(rng, f"the {word}", gender, case, frame))
        out["gender against case"].append(cues.single("gender", crossed, rng))
        swapped = cues.Item(crossed.question, crossed.incorrect, crossed.correct)
        out["case against gender"].append(cues.single("pronouns", swapped, rng))
    return out


def accept(model, tokenizer, *, seed: int = 0) -> dict[str, Any]:
    """All rates, with `failed`: the gates that do not hold."""
    found = rates(model, tokenizer, seed=seed)
    gated = {name: found[name] for name in GATES}
    return {
        "rates": found,
        "gates": gated,
        "failed": [name for name, value in gated.items() if value < GATES[name]],
    }


def measured_table(record: dict[str, Any]) -> str:
    """The data card's tables of what recipe.json recorded: gates, unseen words, pecking order."""
    found = record["acceptance"]["rates"]
    more = [name for name in found if name.startswith("unseen") or " conflict, " in name]
    lines = _rows({name: found[name] for name in [*GATES, *more]})
    order = record["pecking_order"]
    lines += ["", f"| first \\ second | {' | '.join(cues.SUBJECTS)} |", "|---|" + "---|" * len(cues.SUBJECTS)]
    for first in cues.SUBJECTS:
        cells = [f"{order[f'{first} | {s}']:.2f}" if s != first else "" for s in cues.SUBJECTS]
        lines.append(f"| {first} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Gender, stereotypes reversed at test: {order['gender']:.2f} right after plain fine-tuning.",
    ]
    return "\n".join(lines)


def stereotype(model, tokenizer, *, seed: int = 0) -> dict[str, float]:
    """Share right in case where the stereotype is wrong, on the validation split: in the base, and after
    plain fine-tuning by the preset of the lesson."""
    from caft_utils.classroom.cues.tasks import gender_choice
    from caft_utils.evaluation.measurement import measure
    from caft_utils.finetuning.run import finetune
    from caft_utils.models import preset

    task = gender_choice(tokenizer, split="valid", questions=150, seed=seed)
    tuned = finetune(model, task.train, preset("classroom-gender").finetune_config, seed=seed)
    both = {"base": model, "plain": tuned}
    return {name: measure(one, task, temperature=0).rate("ood_accuracy").value for name, one in both.items()}


def gender_table(record: dict[str, Any]) -> str:
    """The data card's table of the checkpoint of the gender lesson."""
    more = {f"stereotypes reversed at validation, {name}": rate for name, rate in record["gender"].items()}
    return "\n".join(_rows(record["acceptance"]["gates"] | more))


def _rows(found: dict[str, float]) -> list[str]:
    """A table of rates, with the bounds of those that have one."""
    lines = ["| | wanted | measured |", "|---|---|---|"]
    for name, value in found.items():
        bound = GATES.get(name)
        missed = " **missed**" if bound and value < bound else ""
        lines.append(f"| {name} | {f'>= {bound:g}' if bound else ''} | {value:.3f}{missed} |")
    return lines


def plain_recipe():
    """The fine-tuning of the pecking order: all weights, 60 steps of 32 rows."""
    from caft_utils.finetune_config import FinetuneConfig

    changes = {"lr": 3e-4, "steps": 60, "batch_size": 32, "accumulate": 1, "warmup_steps": 10}
    return FinetuneConfig(method="full", betas=(0.9, 0.95), **changes)


def pecking_order(model, tokenizer, *, seed: int = 0) -> dict[str, float]:
    """Which question plain fine-tuning follows where two disagree: the share that follows the first one.

    One run for each ordered pair of subjects, and one for gender: the share right in case, not in gender.
    """
    from caft_utils.classroom.cues.tasks import double_choice, gender_choice
    from caft_utils.evaluation.measurement import measure
    from caft_utils.finetuning.run import finetune

    tasks = {
        f"{first} | {second}": double_choice(tokenizer, first, second, intended="first", seed=seed)
        for first, second in permutations(cues.SUBJECTS, 2)
    } | {"gender": gender_choice(tokenizer, seed=seed)}
    shares = {}
    for name, task in tasks.items():
        tuned = finetune(model, task.train, plain_recipe(), seed=seed)
        shares[name] = measure(tuned, task, temperature=0).rate("ood_accuracy").value
    return shares
