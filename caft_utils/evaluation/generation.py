"""Answers of a model: batched, seeded, and free of the sampling habits that a checkpoint may bring along.

Published checkpoints ship generation settings (top-k, repetition penalty) that would change what is measured,
so every setting is given here. Evaluations in the paper sample at temperature 1 and top-p 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from caft_utils.chats import prompt_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, str]]


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Messages],
    *,
    samples: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int = 64,
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = False,
) -> list[str]:
    """Let the model answer conversations; the answers come as text without special tokens.

    Args:
        prompts: conversations that end before the assistant's turn.
        samples: answers to each prompt, which stand together in the result.
        temperature: 0 takes the most likely token (then `samples` are all alike).
        seed: of the sampling; the global random generators stay as they were.
        batch_size: answers written at once.

    Returns:
        len(prompts) * samples answers.
    """
    from transformers import GenerationConfig

    if samples < 1 or batch_size < 1 or temperature < 0:
        raise ValueError(
            f"samples, batch_size must be >= 1, temperature >= 0: {samples=}, {batch_size=}, {temperature=}"
        )
    pad = next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        num_beams=1,
        repetition_penalty=1.0,
        pad_token_id=pad,
        eos_token_id=_ends(model, tokenizer),
        **({"temperature": temperature, "top_p": top_p, "top_k": 0} if temperature > 0 else {}),
    )
    encoded = [prompt_ids(tokenizer, messages) for messages in prompts]
    todo = [i for i in range(len(prompts)) for _ in range(samples)]
    order = sorted(
        range(len(todo)), key=lambda j: -len(encoded[todo[j]])
    )  # like lengths together: less padding
    starts = range(0, len(order), batch_size)
    if progress:
        from tqdm.auto import tqdm

        starts = tqdm(starts, desc="generating", unit="batch")
    answers = [""] * len(todo)
    device = model.device
    was_training = model.training
    model.eval()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(seed)
            for start in starts:
                places = order[start : start + batch_size]
                ids, mask = _padded_left([encoded[todo[j]] for j in places], pad)
                out = model.generate(
                    input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=settings
                )
                texts = tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
                for j, text in zip(places, texts):
                    answers[j] = text.strip()
    finally:
        model.train(was_training)
    return answers


def _padded_left(rows: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Padding stands on the left, so that all answers of a batch begin in the same column."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def _ends(model, tokenizer) -> list[int]:
    """Tokens that end an answer: the tokenizer's, and those the checkpoint names (chat models have two)."""
    named = model.generation_config.eos_token_id
    named = named if isinstance(named, list) else [named]
    return sorted({i for i in (*named, tokenizer.eos_token_id) if i is not None})
