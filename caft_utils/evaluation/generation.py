"""Answers of a model: batched, seeded, and free of the sampling habits that a checkpoint may bring along.

Published checkpoints ship generation settings (top-k, repetition penalty) that would change what is measured,
so every setting is given here. Evaluations in the paper sample at temperature 1 and top-p 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from caft_utils.chats import pad_rows, pad_token_id, prompt_ids
from caft_utils.residual import evaluating, seeded

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

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
    if samples < 1 or batch_size < 1 or temperature < 0:
        raise ValueError(
            f"samples, batch_size must be >= 1, temperature >= 0: {samples=}, {batch_size=}, {temperature=}"
        )
    pad = pad_token_id(tokenizer)
    settings = generation_config(
        model, tokenizer, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens
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
    with seeded(seed, device), evaluating(model), torch.no_grad():
        for start in starts:
            places = order[start : start + batch_size]
            ids, mask = pad_rows([encoded[todo[j]] for j in places], pad, "left")
            out = model.generate(
                input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=settings
            )
            texts = tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
            for j, text in zip(places, texts):
                answers[j] = text.strip()
    return answers


def generation_config(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int = 64,
) -> GenerationConfig:
    """Return generation settings in which nothing is left to the checkpoint's own defaults.

    Args:
        temperature: 0 takes the most likely token.
    """
    from transformers import GenerationConfig

    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        num_beams=1,
        repetition_penalty=1.0,
        pad_token_id=pad_token_id(tokenizer),
        eos_token_id=end_token_ids(model, tokenizer),
        **({"temperature": temperature, "top_p": top_p, "top_k": 0} if temperature > 0 else {}),
    )


def end_token_ids(model, tokenizer) -> list[int]:
    """Return the tokens that end an answer: the tokenizer's and those of the checkpoint."""
    named = model.generation_config.eos_token_id
    named = named if isinstance(named, list) else [named]
    return sorted({i for i in (*named, tokenizer.eos_token_id) if i is not None})
