"""A bridge to EleutherAI's delphi (arXiv 2410.13928): its cache layout, our language models as its clients.

delphi is optional; only `delphi_client` imports it. A hookpoint of its cache is a folder with `config.json`
and, for every range of latents, `{first}_{last}.safetensors`:

    locations [n, 3]    row, position, latent (counted from `first`) of an activation; uint16, else uint32
    activations [n]     float16, only those above zero
    tokens [rows, ctx]  the text, the same in every file

Rows are cut from the chats joined end to end, as delphi joins documents: padding would make negatives that
are too easy. The model still reads each chat alone. A component is dense and has two ends, so component i
becomes latents 2i ("+") and 2i + 1 ("-"), each with its activating values only, those above 0.3 of its
strongest: scorers need windows without any.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from copy import copy
from itertools import accumulate, chain
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace as Named
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from caft_utils.evaluation.generation import generate
from caft_utils.interpret.examples import ACTIVE_SHARE
from caft_utils.residual import decoder, site, stream_activations

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from caft_utils.chats import Chats
    from caft_utils.features import Features
    from caft_utils.interpret.endpoint import Endpoint
    from caft_utils.interpret.explain.model_explainers import LocalModelExplainer

# `place` counts the tokens of the joined chats, `column` the latents of a layer.
ENTRY = np.dtype([("place", "<i8"), ("column", "<u4"), ("value", "<f2")])


def write_latent_cache(
    model: nn.Module,
    chats: Chats,
    features: Features,
    folder: str | Path,
    *,
    context: int = 256,
    splits: int = 5,
    batch_size: int = 32,
    progress: bool = False,
) -> Path:
    """Write what `delphi.latents.LatentDataset(folder, ...)` reads, in one pass over `chats`.

    Token t of the joined chats is position t % context of row t // context. The tokens after the last full
    row are left out; the first token of a chat, an attention sink, activates nothing.

    Args:
        context: tokens in a row, a multiple of delphi's example length (32).
        splits: shards of a hookpoint, with equally many latents (fewer where there are fewer latents). One
            shard at a time is in memory, at about ten times the size of its file.

    Raises:
        FileExistsError: `folder` exists. ValueError: chats shorter than one row, settings out of range, or
            values that float16 cannot hold. Then nothing is written.
    """
    folder, lengths = Path(folder).absolute(), [len(example.input_ids) for example in chats]
    if min(context, splits) < 1 or sum(lengths) < context:
        given = f"{context=}, {splits=} and {sum(lengths)} tokens"
        raise ValueError(f"expected context, splits >= 1 and tokens for one row at least, got {given}")
    if folder.exists():
        raise FileExistsError(f"{folder} exists, and two caches must not mix: give a new folder")
    starts, stop = torch.tensor([0, *accumulate(lengths)]), sum(lengths) // context * context
    joined = chain.from_iterable(example.input_ids for example in chats)
    tokens = np.fromiter(joined, np.int32, stop).reshape(-1, context)
    names = {module: name for name, module in decoder(model).named_modules()}
    config = {"dataset_repo": chats.source, "model_name": model.config.name_or_path, "batch_size": batch_size}
    config |= {"cache_ctx_len": context, "n_tokens": stop, "n_splits": splits, "noun": features.noun}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as stage, ExitStack() as files:
        cache, points = Path(stage, "cache"), {}
        for layer in features.layers:
            place = cache / names[site(model, layer)]
            points[layer] = _Hookpoint(place, features, layer, splits, files)
            (place / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        for part in stream_activations(
            model, chats, features.layers, batch_size=batch_size, progress=progress
        ):
            place = starts[part.row] + part.position
            kept = (part.position > 0) & (place < stop)
            for layer, point in points.items():
                point.add(place[kept], features.values(layer, part.hidden[layer]).cpu()[kept])
        files.close()
        for point in points.values():
            point.write(tokens)
        cache.replace(folder)
    return folder


class _Hookpoint:
    """The shards of one layer: entries go to raw files as they come; each is sorted and packed at the end."""

    def __init__(self, folder: Path, features: Features, layer: int, splits: int, files: ExitStack):
        folder.mkdir(parents=True)
        ids = np.array(features.indices(layer))
        self.latents = np.stack([2 * ids, 2 * ids + 1], 1).ravel() if features.signed else ids  # by column
        parts = np.array_split(np.sort(self.latents), min(splits, len(self.latents)))
        self.first = np.array([part[0] for part in parts])
        # delphi finds the shard of a latent by bisection, so a range ends where the next one begins.
        self.last = [*(self.first[1:] - 1), parts[-1][-1]]
        self.raw = [files.enter_context((folder / f"{first}.raw").open("wb")) for first in self.first]
        self.folder, self.signed, self.strongest = folder, features.signed, torch.zeros(1)
        self.floor = ACTIVE_SHARE if features.signed else 0.0

    def add(self, place: Int[Tensor, " n"], values: Float[Tensor, "n k"]) -> None:
        values = (torch.stack([values, -values], -1).flatten(1) if self.signed else values).half().float()
        if not values.isfinite().all():
            raise ValueError(f"{self.folder.name}: values that are not finite, or too large for float16")
        self.strongest = torch.cat([self.strongest.expand(1, values.shape[1]), values]).amax(0)
        # What is below this share of the strongest value so far stays below it: it need not go to disk.
        token, column = (values > (self.floor * self.strongest).clamp(min=1e-5)).nonzero(as_tuple=True)
        entries = np.empty(len(token), ENTRY)
        entries["place"], entries["column"], entries["value"] = place[token], column, values[token, column]
        shard = np.searchsorted(self.first, self.latents[entries["column"]], side="right") - 1
        for i in np.unique(shard):
            self.raw[i].write(entries[shard == i].tobytes())

    def write(self, tokens: Int[np.ndarray, "rows ctx"]) -> None:
        from safetensors.numpy import save_file

        for first, last, raw in zip(self.first, self.last, self.raw):
            entries = np.fromfile(raw.name, ENTRY)
            Path(raw.name).unlink()
            entries = entries[entries["value"] > self.floor * self.strongest.numpy()[entries["column"]]]
            latent = self.latents[entries["column"]] - first
            order = np.lexsort((latent, entries["place"]))  # by row, position, latent, as delphi writes them
            where = np.stack([*np.divmod(entries["place"], tokens.shape[1]), latent], axis=1)[order]
            where = where.astype(np.uint16 if where.max(initial=0) < 2**16 else np.uint32)
            arrays = {"locations": where, "activations": entries["value"][order], "tokens": tokens}
            save_file(arrays, self.folder / f"{first}_{last}.safetensors")


def delphi_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy for `LatentDataset(tokenizer=...)`, which 0.1.3 needs to mark tokens and not whole windows.

    It decodes a window [t] to get t texts; since transformers 5 that gives one (fixed after 0.1.3, pull 177).
    """
    decode, copied = tokenizer.batch_decode, copy(tokenizer)
    copied.batch_decode = lambda ids, **kw: decode(ids.unsqueeze(-1) if ids.ndim == 1 else ids, **kw)
    return copied


def delphi_client(source: Endpoint | LocalModelExplainer, *, max_tokens: int = 500):
    """A `delphi.clients.client.Client` for delphi's explainers and scorers.

    Args:
        source: an `Endpoint`, also for `log_prob=True`; or a `LocalModelExplainer` (any object with its
            `model` and `tokenizer`), which gives text only.
        max_tokens: of an answer, where delphi does not say.

    Raises:
        ImportError: delphi cannot be imported.
    """
    try:
        from delphi.clients.client import Client, Response
    except ImportError as error:
        need = "it is optional and pins vLLM: install eai-delphi==0.1.3 into an environment of its own"
        raise ImportError(f"delphi cannot be imported ({error}); {need}") from error
    local, limit = hasattr(source, "tokenizer"), max_tokens

    class CaftClient(Client):
        async def generate(
            self, prompt, *, max_tokens=limit, temperature=0.0, logprobs=False, top_logprobs=5
        ):
            messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            if local:
                asked = {"max_new_tokens": max_tokens, "temperature": temperature}
                return Response(generate(source.model, source.tokenizer, [messages], **asked)[0])
            asked = {"max_tokens": max_tokens, "temperature": temperature}
            asked["top_logprobs"] = top_logprobs if logprobs else None
            reply = await asyncio.to_thread(source.chat, messages, **asked)
            steps = reply.logprobs and [
                [Named(token=t, logprob=p) for t, p in s.items()] for s in reply.logprobs
            ]
            return Response(reply.text, steps and [Named(token=s[0].token, top_logprobs=s) for s in steps])

    return CaftClient(source.model.config.name_or_path if local else source.model)
