"""Pretrain the checkpoints `qwen` and `mistral` from scratch: sizes, attention pattern and loss.

In a small model with full attention in every layer, nothing forces the persona into the residual stream: the
upper layers can read it from the context again, each domain in its own way. Here the lower half has full
attention and the upper half a window of four tokens. Anything far away, such as the persona, must therefore
be read in the lower half and carried upwards. The variants `qwen-full` and `mistral-window` lack this
pattern; the data card compares them with the shipped checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from caft_utils.child_processes import run_in_new_process
from caft_utils.classroom.personas.batches import IGNORED, batches_by_length, encode_corpus, padded_batch
from caft_utils.classroom.pretraining import COMMON_CONFIG, Schedule, new_language_model, train

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WINDOW = 4
SIZES = dict(
    hidden_size=128, intermediate_size=384, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=4
)


@dataclass(frozen=True, kw_only=True)
class PersonasSchedule(Schedule):
    """How a checkpoint of the personas world is trained.

    tokens: number of tokens in the training text. batch_tokens: largest number per step, padding included.
    sharpness: factor on the logits, multiplied into the weight of the final norm after training. A model of
        this size leaves 0.2 % of the probability of every token to implausible words, which makes 4 % of its
        sampled answers incoherent but none of its greedy ones (measured on qwen, training wordings).
    more_wordings: also use the question wordings `ask_more` of the world.
    """

    tokens: int
    batch_tokens: int = 3072
    sharpness: float = 1.25
    more_wordings: bool = False


def new_model(architecture: str, vocab_size: int, seed: int = 0) -> PreTrainedModel:
    """Return a freshly initialised model: qwen, mistral, or the variants qwen-full and mistral-window."""
    import transformers as hf

    common = COMMON_CONFIG | SIZES | {"vocab_size": vocab_size}
    half = SIZES["num_hidden_layers"] // 2
    types = ["full_attention"] * half + ["sliding_attention"] * half
    configs = {
        "qwen": lambda: hf.Qwen2Config(
            **common, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=half
        ),
        "qwen-full": lambda: hf.Qwen2Config(**common),
        "mistral": lambda: hf.MinistralConfig(
            **common, sliding_window=WINDOW, layer_types=types, head_dim=32
        ),
        "mistral-window": lambda: hf.MistralConfig(**common, sliding_window=16, head_dim=32),
    }
    if architecture not in configs:
        raise ValueError(f"unknown architecture {architecture!r}; choose one of {', '.join(configs)}")
    return new_language_model(configs[architecture](), seed)


@torch.no_grad()
def sharpen(model: PreTrainedModel, factor: float) -> None:
    """Multiply the logits of a model by `factor`, through the weight of its final norm."""
    model.model.norm.weight.mul_(factor)


def pretrain(
    architecture: str,
    tokenizer: PreTrainedTokenizerBase,
    schedule: PersonasSchedule,
    *,
    progress: bool = True,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Train a new model, on a GPU if there is one.

    Returns:
        The model in evaluation mode, and a record of its schedule, training text, loss and training time.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Generate text in a separate process. The millions of small objects that it leaves in the heap would slow
    # down every later allocation, and training would take half as long again.
    corpus, corpus_sha256 = run_in_new_process(
        encode_corpus, tokenizer, schedule.tokens, schedule.seed, more_wordings=schedule.more_wordings
    )
    batches = batches_by_length(corpus.lengths, schedule.batch_tokens, schedule.seed)
    model = new_model(architecture, len(tokenizer), schedule.seed).to(device)
    # With rows this short, the backward pass of torch's fused attention takes most of a step on a CPU.
    model.set_attn_implementation("eager")

    def losses(model: PreTrainedModel, numbers: list[int]) -> Iterator[Tensor]:
        batch = padded_batch([corpus[i] for i in numbers], tokenizer.pad_token_id)
        ids, attention, places, targets = (tensor.to(device) for tensor in batch)
        with torch.autocast(device, torch.bfloat16):
            hidden = model.model(input_ids=ids, attention_mask=attention).last_hidden_state
            logits = model.lm_head(hidden.flatten(0, 1)[places])
        yield F.cross_entropy(logits.float(), targets, ignore_index=IGNORED)

    measured = train(
        model, batches, losses, schedule, steps=len(batches), name=architecture, progress=progress
    )
    model.set_attn_implementation("sdpa")
    sharpen(model, schedule.sharpness)
    record = {
        "architecture": architecture,
        "schedule": asdict(schedule),
        "corpus_sha256": corpus_sha256,
        "steps": len(batches),
        "documents": len(corpus),
    }
    return model, record | measured
