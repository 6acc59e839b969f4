"""Pretrain the checkpoint `cues` from scratch, and `gender`, which continues from it.

In a prototype with full attention in every layer, block 0 already compared the raw embeddings of options and
questions, so ablation at block outputs came too late. Here the lowest blocks see a window of four tokens. An
option cannot see its question there. The model must therefore determine each word's class (a plural, a
football player, the case of a gap) at the word itself, and carry it up in the residual stream to the blocks
with full attention, which do the comparison. The variant `cues-full` has no windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional as F

from caft_utils.chats import pad_rows
from caft_utils.classroom.cues.batches import EncodedDocument, corpus_hash, step_batches
from caft_utils.classroom.cues.schedules import CuesSchedule
from caft_utils.classroom.pretraining import COMMON_CONFIG, new_language_model, train

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WINDOW = 4
WINDOWED_BLOCKS = {"cues": 2, "cues-full": 0}  # number of lowest blocks with a window
SIZES = dict(
    hidden_size=128, intermediate_size=256, num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=4
)
ACCUMULATE = 4  # parts of a batch; documents of a part have similar lengths, which saves padding


def new_model(architecture: str, vocab_size: int, seed: int = 0) -> PreTrainedModel:
    """Return a freshly initialised Qwen2ForCausalLM: cues, or its variant cues-full."""
    import transformers as hf

    if architecture not in WINDOWED_BLOCKS:
        raise ValueError(f"unknown architecture {architecture!r}; choose one of {', '.join(WINDOWED_BLOCKS)}")
    low, depth = WINDOWED_BLOCKS[architecture], SIZES["num_hidden_layers"]
    config = COMMON_CONFIG | SIZES | {"vocab_size": vocab_size}
    if low:
        types = ["sliding_attention"] * low + ["full_attention"] * (depth - low)
        config |= dict(use_sliding_window=True, sliding_window=WINDOW, layer_types=types)
    return new_language_model(hf.Qwen2Config(**config), seed)


def pretrain(
    architecture: str,
    tokenizer: PreTrainedTokenizerBase,
    schedule: CuesSchedule,
    *,
    model: PreTrainedModel | None = None,
    progress: bool = True,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Train a new model, or continue with the given one, in place and with new optimizers.

    Returns:
        The model in evaluation mode, and a record of its schedule, training text, loss and training time.
    """
    if model is None:
        model = new_model(architecture, len(tokenizer), schedule.seed)
    tokens = 0

    def losses(model: PreTrainedModel, documents: list[EncodedDocument]) -> Iterator[Tensor]:
        nonlocal tokens
        tokens += sum(len(ids) for ids, _ in documents)
        learned = sum(sum(learn[1:]) for _, learn in documents)
        size = -(-len(documents) // ACCUMULATE)
        for start in range(0, len(documents), size):
            yield _summed_loss(model, documents[start : start + size]) / learned

    batches = step_batches(tokenizer, schedule)
    measured = train(
        model, batches, losses, schedule, steps=schedule.steps, name=architecture, progress=progress
    )
    record = {
        "architecture": architecture,
        "schedule": asdict(schedule),
        "corpus_sha256": corpus_hash(tokenizer, schedule),
        "tokens": tokens,
    }
    return model, record | measured


def _summed_loss(model: PreTrainedModel, documents: list[EncodedDocument]) -> Tensor:
    """Return the sum of the cross-entropy of the learned tokens.

    Padding is on the right, which causal attention does not see, so no mask is needed.
    """
    ids, _ = pad_rows([own for own, _ in documents], 0)
    learn = pad_rows([own for _, own in documents], 0)[0].bool()[:, 1:]
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    return F.cross_entropy(model.lm_head(hidden[learn]).float(), ids[:, 1:][learn], reduction="sum")
