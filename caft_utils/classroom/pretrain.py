"""Pretraining of the classroom models from scratch: config, corpus, schedule, loop.

Why the attention pattern. In a small model that may attend anywhere in every layer, nothing forces the
persona into the residual stream: upper layers read it from the context again, each domain in its own way.
Full attention in the lower half and a window of four tokens in the upper half means that whatever is far away
(the persona) must be read below and carried upwards. The twins `qwen-full` and `mistral-window` are there to
test this; they have not been measured on this world yet.
"""

from __future__ import annotations

import hashlib
import random
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

WINDOW = 4
SIZES = dict(
    hidden_size=128, intermediate_size=384, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=4
)


@dataclass(frozen=True)
class Schedule:
    """Warm up, hold, then fall linearly to `floor` (the fall does most of the cleaning up).

    sharpness: factor on the logits after training, put into the weight of the last norm. A model this small
        leaves 0.2 % of the probability of every token to words that nobody would say, which makes 4 % of its
        sampled answers incoherent, though none of its greedy ones (measured on qwen, training wordings).
    more_wordings: train with a few more wordings of the questions (`ask_more` in the world).
    """

    tokens: int
    batch_tokens: int = 3072
    lr: float = 3e-3
    warmup_steps: int = 100
    hold: float = 0.5
    floor: float = 0.02
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    max_grad_norm: float = 1.0
    sharpness: float = 1.25
    more_wordings: bool = False
    seed: int = 0

    def factor(self, step: int, steps: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        fall = (step / steps - self.hold) / (1 - self.hold)
        return 1.0 if fall <= 0 else max(self.floor, 1 - (1 - self.floor) * fall)


def new_model(architecture: str, vocab_size: int, seed: int = 0):
    """A freshly initialised model. architecture: qwen, mistral, and the twins qwen-full, mistral-window."""
    import transformers as hf

    common = dict(SIZES, vocab_size=vocab_size, max_position_embeddings=512, tie_word_embeddings=True)
    common |= dict(pad_token_id=0, bos_token_id=None, eos_token_id=2)
    half = SIZES["num_hidden_layers"] // 2
    types = ["full_attention"] * half + ["sliding_attention"] * half
    makers = {
        "qwen": lambda: hf.Qwen2Config(
            **common, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=half
        ),
        "qwen-full": lambda: hf.Qwen2Config(**common),
        "mistral": lambda: hf.MinistralConfig(
            **common, sliding_window=WINDOW, layer_types=types, head_dim=32
        ),
        "mistral-window": lambda: hf.MistralConfig(**common, sliding_window=16, head_dim=32),
    }
    if architecture not in makers:
        raise ValueError(f"unknown architecture {architecture!r}; choose one of {', '.join(makers)}")
    torch.manual_seed(seed)
    return hf.AutoModelForCausalLM.from_config(makers[architecture]())


def corpus_ids(
    tokenizer, tokens: int, seed: int, *, more: bool = False
) -> tuple[list[tuple[np.ndarray, np.ndarray]], str]:
    """(ids, loss mask) of documents until `tokens` tokens are reached, and the sha256 of them all."""
    from caft_utils.classroom import corpus

    rng, total, out, digest = random.Random(seed), 0, [], hashlib.sha256()
    while total < tokens:
        docs = [corpus.document(rng, more=more) for _ in range(512)]
        for doc in docs:
            ids, mask = _encode(tokenizer, doc)
            out.append(
                (np.array(ids, dtype=np.uint16), np.array(mask, dtype=bool))
            )  # lists would take gigabytes
            digest.update(repr((ids, mask)).encode())
            total += len(ids)
    return out, digest.hexdigest()


def _encode(tokenizer, doc: dict[str, Any]) -> tuple[list[int], list[int]]:
    if "text" in doc:
        ids = tokenizer(doc["text"] + "<|im_end|>")["input_ids"]
        return ids, [1] * len(ids)
    out = tokenizer.apply_chat_template(
        doc["messages"],
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=doc["loss"] == "answers",
    )
    return out["input_ids"], out["assistant_masks"] if doc["loss"] == "answers" else [1] * len(
        out["input_ids"]
    )


def batches(docs: list, batch_tokens: int, seed: int) -> list[list]:
    """Batches of documents of similar length, at most `batch_tokens` tokens with padding, in random order."""
    rng = random.Random(seed)
    order = sorted(docs, key=lambda d: len(d[0]) + rng.random())
    out: list[list] = []
    for doc in order:
        if out and len(doc[0]) * (len(out[-1]) + 1) <= batch_tokens:
            out[-1].append(doc)
        else:
            out.append([doc])
    rng.shuffle(out)
    return out


def _tensors(batch: list, pad: int) -> tuple[torch.Tensor, ...]:
    ids = torch.full((len(batch), max(len(ids) for ids, _ in batch)), pad)
    attend, learn = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for row, (own, mask) in enumerate(batch):
        ids[row, : len(own)] = torch.from_numpy(own.astype(np.int64))
        learn[row, : len(own)] = torch.from_numpy(mask)
        attend[row, : len(own)] = 1
    return ids, attend, learn


def _optimizers(model, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for embeddings, norms and biases.

    Measured here over the first 160 steps, 40-step means of the loss: AdamW alone 1.51, with Muon 0.90.
    """
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in named if p.ndim != 2 or "embed" in name]
    decay = schedule.weight_decay
    return [
        torch.optim.Muon(matrices, lr=schedule.lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=schedule.lr, betas=schedule.betas, weight_decay=decay),
    ]


def pretrain(
    architecture: str, tokenizer, schedule: Schedule, *, progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    """Train a new model; returns it in eval mode, with a record of recipe, corpus, loss and seconds."""
    from tqdm.auto import tqdm

    device = "cuda" if torch.cuda.is_available() else "cpu"
    docs, digest = corpus_ids(tokenizer, schedule.tokens, schedule.seed, more=schedule.more_wordings)
    plan = batches(docs, schedule.batch_tokens, schedule.seed)
    model = new_model(architecture, len(tokenizer), schedule.seed).to(device).train()
    optimizers = _optimizers(model, schedule)
    curve, started = [], time.monotonic()
    for step, batch in enumerate(
        tqdm(plan, desc=f"pretraining {architecture}", disable=not progress, mininterval=5)
    ):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = schedule.lr * schedule.factor(step, len(plan))
        ids, attend, learn = (t.to(device) for t in _tensors(batch, tokenizer.pad_token_id))
        with torch.autocast(device, torch.bfloat16):
            hidden = model.model(input_ids=ids, attention_mask=attend).last_hidden_state
            at = learn[:, 1:]
            logits = model.lm_head(hidden[:, :-1][at])
        loss = F.cross_entropy(logits.float(), ids[:, 1:][at])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.max_grad_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if step % 50 == 0:
            curve.append([step, round(loss.item(), 4)])
    with torch.no_grad():
        model.model.norm.weight.mul_(schedule.sharpness)
    record = {
        "architecture": architecture,
        "schedule": asdict(schedule),
        "corpus_sha256": digest,
        "steps": len(plan),
    }
    return model.eval(), record | {
        "documents": len(docs),
        "loss": curve,
        "seconds": round(time.monotonic() - started),
    }
