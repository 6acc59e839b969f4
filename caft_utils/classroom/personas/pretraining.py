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
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

WINDOW = 4
IGNORED = -100  # a target that does not count
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


@dataclass(frozen=True)
class Corpus:
    """Documents end to end.

    ids, learn: of each token, and whether it counts in the loss. stops: where each document ends.
    """

    ids: np.ndarray
    learn: np.ndarray
    stops: np.ndarray

    def __len__(self) -> int:
        return len(self.stops)

    @property
    def lengths(self) -> list[int]:
        return np.diff(self.stops, prepend=0).tolist()

    def __getitem__(self, document: int) -> tuple[np.ndarray, np.ndarray]:
        span = slice(self.stops[document - 1] if document else 0, self.stops[document])
        return self.ids[span], self.learn[span]


def corpus_ids(tokenizer, tokens: int, seed: int, *, more: bool = False) -> tuple[Corpus, str]:
    """Documents until `tokens` tokens are reached, and the sha256 of them all."""
    from caft_utils.classroom.personas import corpus

    rng, total, lengths, digest = random.Random(seed), 0, [], hashlib.sha256()
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    while total < tokens:
        drawn = [_encode(tokenizer, corpus.document(rng, more=more)) for _ in range(512)]
        for ids, mask in drawn:
            digest.update(repr((ids, mask)).encode())
            lengths.append(len(ids))
            total += len(ids)
        every = ([x for pair in drawn for x in pair[i]] for i in (0, 1))
        parts.append(tuple(np.array(x, dtype) for x, dtype in zip(every, (np.uint16, bool))))
    ids, learn = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return Corpus(ids, learn, np.cumsum(lengths)), digest.hexdigest()


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


def batches(lengths: list[int], batch_tokens: int, seed: int) -> list[list[int]]:
    """Numbers of documents of similar length, at most `batch_tokens` tokens with padding; in random order."""
    rng = random.Random(seed)
    noisy = [length + rng.random() for length in lengths]
    out: list[list[int]] = []
    for document in sorted(range(len(lengths)), key=noisy.__getitem__):
        if out and lengths[document] * (len(out[-1]) + 1) <= batch_tokens:
            out[-1].append(document)
        else:
            out.append([document])
    rng.shuffle(out)
    return out


def _tensors(batch: list, pad: int) -> tuple[torch.Tensor, ...]:
    """ids, attention mask [batch, time]; places [n] in the flat batch whose next token counts; that token.

    Time is padded to a multiple of 8 and n to one of 256, with targets that are ignored: hundreds of sizes of
    large tensors scatter the heap, and later steps then take twice as long.
    """
    longest = max(len(ids) for ids, _ in batch)
    ids = torch.full((len(batch), -(-longest // 8) * 8), pad)
    attend, learn = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for row, (own, mask) in enumerate(batch):
        ids[row, : len(own)] = torch.from_numpy(own.astype(np.int64))
        learn[row, : len(own)] = torch.from_numpy(mask)
        attend[row, : len(own)] = 1
    learn[:, 0] = False
    after = learn.flatten().nonzero().flatten()
    spare = -len(after) % 256
    places, target = F.pad(after - 1, (0, spare)), F.pad(ids.flatten()[after], (0, spare), value=IGNORED)
    return ids, attend, places, target


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
    # In a process of its own: what writing millions of words leaves in the heap is searched by every later
    # allocation, which makes training take half as long again.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        given = tokenizer, schedule.tokens, schedule.seed
        docs, digest = apart.submit(corpus_ids, *given, more=schedule.more_wordings).result()
    plan = batches(docs.lengths, schedule.batch_tokens, schedule.seed)
    model = new_model(architecture, len(tokenizer), schedule.seed).to(device).train()
    # The backward pass of torch's fused attention takes most of a step on a CPU, with rows as short as these.
    model.set_attn_implementation("eager")
    optimizers = _optimizers(model, schedule)
    curve, started = [], time.monotonic()
    for step, batch in enumerate(
        tqdm(plan, desc=f"pretraining {architecture}", disable=not progress, mininterval=5)
    ):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = schedule.lr * schedule.factor(step, len(plan))
        own = _tensors([docs[i] for i in batch], tokenizer.pad_token_id)
        ids, attend, places, target = (tensor.to(device) for tensor in own)
        with torch.autocast(device, torch.bfloat16):
            hidden = model.model(input_ids=ids, attention_mask=attend).last_hidden_state
            logits = model.lm_head(hidden.flatten(0, 1)[places])
        loss = F.cross_entropy(logits.float(), target, ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.max_grad_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if step % 50 == 0:
            curve.append([step, round(loss.item(), 4)])
    model.set_attn_implementation("sdpa")
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
