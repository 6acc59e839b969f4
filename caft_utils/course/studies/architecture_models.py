"""Small models of the paper's architectures with random weights, and what an experiment on them needs.

Task and tokenizer are those of the classroom, whose vocabulary is small.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from caft_utils import load
from caft_utils.classroom.tasks import emergent_misalignment
from caft_utils.residual import seeded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from caft_utils.tasks.task import Task

ARCHITECTURES = ("Qwen2", "Qwen3", "Mistral", "Mistral3", "Gemma2", "Gemma3")
LAYERS, WIDTH, LATENTS = (0, 1), 32, 24


def random_architecture(name: str, dtype: str, seed: int) -> PreTrainedModel:
    """Return a model of two blocks and width 32; Mistral3 and Gemma3 have an image encoder beside them."""
    import transformers

    vocabulary = len(classroom_tokenizer())
    shape = {"hidden_size": WIDTH, "intermediate_size": 48, "num_attention_heads": 2, "head_dim": 16}
    text = shape | {"vocab_size": vocabulary, "num_hidden_layers": 2, "num_key_value_heads": 1}
    text |= {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None, "max_position_embeddings": 512}
    image = {**shape, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14}
    if name == "Mistral3":
        config = transformers.Mistral3Config(
            text_config=transformers.MistralConfig(**text),
            vision_config=transformers.PixtralVisionConfig(**image),
            image_token_index=vocabulary - 1,
        )
        made = transformers.Mistral3ForConditionalGeneration
    elif name == "Gemma3":
        image.pop("head_dim")
        config = transformers.Gemma3Config(
            text_config=transformers.Gemma3TextConfig(**text),
            vision_config=transformers.SiglipVisionConfig(**image),
            mm_tokens_per_image=4,
            image_token_index=vocabulary - 1,
        )
        made = transformers.Gemma3ForConditionalGeneration
    else:
        config = getattr(transformers, f"{name}Config")(**text)
        made = getattr(transformers, f"{name}ForCausalLM")
    with seeded(seed, torch.device("cpu")):
        return made(config).to(getattr(torch, dtype)).eval()


@cache
def classroom_tokenizer() -> PreTrainedTokenizerBase:
    """Return the tokenizer of the classroom model, whose small vocabulary keeps random models small."""
    return load("classroom")[1]


@cache
def small_task() -> Task:
    """Return a few rows and questions of the classroom's task of insecure code."""
    task = emergent_misalignment(classroom_tokenizer(), rows=12)
    few = {"train": task.train[:12], "valid": task.valid[:4], "generic": task.generic[:12]}
    return replace(task.thin(ood=80, task=40), **few, max_new_tokens=6)


def write_gemma_scope(folder: Path) -> Path:
    """Write random SAEs in the files of Gemma Scope, if they are not there, and return their folder."""
    for layer in LAYERS:
        place = folder / f"layer_{layer}" / "canonical"
        if place.exists():
            continue
        place.mkdir(parents=True)
        rng = np.random.default_rng(layer)
        decoder = rng.standard_normal((LATENTS, WIDTH), dtype=np.float32)
        np.savez(
            place / "params.npz",
            W_enc=rng.standard_normal((WIDTH, LATENTS), dtype=np.float32),
            W_dec=decoder / np.linalg.norm(decoder, axis=1, keepdims=True),
            b_enc=rng.standard_normal(LATENTS, dtype=np.float32),
            b_dec=np.zeros(WIDTH, dtype=np.float32),
            threshold=rng.random(LATENTS, dtype=np.float32) / 10,
        )
    return folder
