"""Bridge to EleutherAI's delphi (arXiv 2410.13928): write its latent cache, and serve as its client.

delphi is optional, and only `delphi_client` imports it. Its cache has a folder for each hookpoint, with
`config.json` and one `{first}_{last}.safetensors` for each range of latents:

    locations [n, 3]    row, position and latent (counted from `first`) of an activation; uint16, else uint32
    activations [n]     float16, only those above zero
    tokens [rows, ctx]  token ids of the text, the same in every file

Rows are cut from the chats joined end to end, as delphi joins documents. Padded rows would give negative
examples that are too easy. The model still reads each chat alone.

A latent of the cache has one side, and a component has two. Component i becomes latents 2i ("+") and 2i + 1
("-"). A component is also dense, and scorers need windows in which it is not active, so only values above
`ACTIVE_SHARE` of the side's maximum are written.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from copy import copy
from itertools import accumulate, chain
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from caft_utils.disk import disk_errors_explained, make_folder
from caft_utils.evaluation.generation import generate
from caft_utils.interpret.examples import ACTIVE_SHARE
from caft_utils.residual import decoder, site, stream_activations
from caft_utils.sinks import Sinks, is_sink, sink_limits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from caft_utils.chats import Chats
    from caft_utils.features import Features
    from caft_utils.interpret.endpoint import Endpoint
    from caft_utils.interpret.explain.model_explainers import LocalModelExplainer

# token: index into the joined chats; column: index into the hookpoint's latents
ACTIVATION = np.dtype([("token", "<i8"), ("column", "<u4"), ("value", "<f2")])


def write_latent_cache(
    model: nn.Module,
    chats: Chats,
    features: Features,
    folder: str | Path,
    *,
    context: int = 256,
    splits: int = 5,
    sinks: Sinks = "spare",
    batch_size: int = 32,
    progress: bool = False,
) -> Path:
    """Write a cache for `delphi.latents.LatentDataset(folder, ...)` in one pass over `chats`.

    Token t of the joined chats is at position t % context of row t // context. The tokens after the last full
    row are left out. The activations of the first token of a chat and of other attention sinks are left out.

    Args:
        context: Tokens in a row, a multiple of delphi's example length (32).
        splits: Shards of a hookpoint, with equally many latents. There are fewer if the latents are fewer.
            One shard at a time is in memory, at about ten times the size of its file.
        sinks: "include" keeps the activations of attention sinks after the first token.
        batch_size: Chats in one forward pass.
        progress: Show a progress bar.

    Returns:
        The folder, as an absolute path.

    Raises:
        FileExistsError: `folder` exists.
        ValueError: The chats are shorter than one row, a setting is out of range, or float16 cannot hold a
            value. Nothing is written.
    """
    folder, lengths = Path(folder).absolute(), [len(example.input_ids) for example in chats]
    if min(context, splits) < 1 or sum(lengths) < context:
        given = f"{context=}, {splits=} and {sum(lengths)} tokens"
        raise ValueError(f"expected context, splits >= 1 and tokens for at least one row, got {given}")
    if folder.exists():
        raise FileExistsError(f"{folder} exists, and two caches must not mix: give a new folder")
    first_token, n_tokens = torch.tensor([0, *accumulate(lengths)]), sum(lengths) // context * context
    joined = chain.from_iterable(example.input_ids for example in chats)
    tokens = np.fromiter(joined, np.int32, n_tokens).reshape(-1, context)
    module_names = {module: name for name, module in decoder(model).named_modules()}
    config = {"dataset_repo": chats.source, "model_name": model.config.name_or_path, "batch_size": batch_size}
    config |= {"cache_ctx_len": context, "n_tokens": n_tokens, "n_splits": splits, "noun": features.kind}
    make_folder(folder.parent)
    with (
        disk_errors_explained(folder.parent, "free some space, or give a folder elsewhere"),
        TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as stage,
        ExitStack() as open_files,
    ):
        cache, writers = Path(stage, "cache"), {}
        limits = sink_limits(model, features.layers, sinks)
        for layer in features.layers:
            hookpoint = cache / module_names[site(model, layer)]
            writers[layer] = _HookpointWriter(hookpoint, features, layer, splits, open_files)
            (hookpoint / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        for batch in stream_activations(
            model, chats, features.layers, batch_size=batch_size, progress=progress
        ):
            token = first_token[batch.row] + batch.position
            keep = (batch.position > 0) & (token < n_tokens)
            for layer, writer in writers.items():
                hidden = batch.hidden[layer]
                heard = keep & ~is_sink(hidden, limits[layer]).cpu()
                writer.add(token[heard], features.values(layer, hidden).cpu()[heard])
        open_files.close()
        for writer in writers.values():
            writer.finish(tokens)
        cache.replace(folder)
    return folder


class _HookpointWriter:
    """Writes the shards of one layer.

    Activations go to a raw file for each shard as they come. `finish` sorts and packs each file.
    """

    def __init__(self, folder: Path, features: Features, layer: int, splits: int, open_files: ExitStack):
        folder.mkdir(parents=True)
        ids = np.array(features.indices(layer))
        self.folder, self.two_sided = folder, features.two_sided
        self.latents = np.stack([2 * ids, 2 * ids + 1], 1).ravel() if self.two_sided else ids  # by column
        shards = np.array_split(np.sort(self.latents), min(splits, len(self.latents)))
        self.first = np.array([shard[0] for shard in shards])
        # delphi finds the shard of a latent by bisection, so a range ends where the next one begins.
        self.last = [*(self.first[1:] - 1), shards[-1][-1]]
        self.raw = [open_files.enter_context((folder / f"{first}.raw").open("wb")) for first in self.first]
        self.min_share = ACTIVE_SHARE if self.two_sided else 0.0
        self.maximum = torch.zeros(1)  # largest value of each column so far

    def add(self, token: Int[Tensor, " n"], values: Float[Tensor, "n k"]) -> None:
        values = (torch.stack([values, -values], -1).flatten(1) if self.two_sided else values).half().float()
        if not values.isfinite().all():
            raise ValueError(f"{self.folder.name}: values that are not finite, or too large for float16")
        self.maximum = torch.cat([self.maximum.expand(1, values.shape[1]), values]).amax(0)
        # The maximum never decreases, so what is below its share now need not go to disk.
        row, column = (values > (self.min_share * self.maximum).clamp(min=1e-5)).nonzero(as_tuple=True)
        activations = np.empty(len(row), ACTIVATION)
        activations["token"], activations["column"] = token[row], column
        activations["value"] = values[row, column]
        shard = np.searchsorted(self.first, self.latents[activations["column"]], side="right") - 1
        for i in np.unique(shard):
            self.raw[i].write(activations[shard == i].tobytes())

    def finish(self, tokens: Int[np.ndarray, "rows ctx"]) -> None:
        from safetensors.numpy import save_file

        for first, last, raw in zip(self.first, self.last, self.raw):
            activations = np.fromfile(raw.name, ACTIVATION)
            Path(raw.name).unlink()
            minimum = self.min_share * self.maximum.numpy()[activations["column"]]
            activations = activations[activations["value"] > minimum]
            latent = self.latents[activations["column"]] - first
            order = np.lexsort((latent, activations["token"]))  # by row, position, latent, as in delphi
            row, position = np.divmod(activations["token"], tokens.shape[1])
            locations = np.stack([row, position, latent], axis=1)[order]
            locations = locations.astype(np.uint16 if locations.max(initial=0) < 2**16 else np.uint32)
            arrays = {"locations": locations, "activations": activations["value"][order], "tokens": tokens}
            save_file(arrays, self.folder / f"{first}_{last}.safetensors")


def delphi_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return a copy for `LatentDataset(tokenizer=...)` of delphi 0.1.3, so that it marks tokens, not windows.

    That version decodes a window [t] and expects t texts, but since transformers 5 it gets one. Later
    versions are fixed (pull request 177).
    """
    decode, copied = tokenizer.batch_decode, copy(tokenizer)
    copied.batch_decode = lambda ids, **kw: decode(ids.unsqueeze(-1) if ids.ndim == 1 else ids, **kw)
    return copied


def delphi_client(source: Endpoint | LocalModelExplainer, *, max_tokens: int = 500):
    """Return a `delphi.clients.client.Client` for delphi's explainers and scorers.

    Args:
        source: An `Endpoint`, also for `log_prob=True`, or a `LocalModelExplainer` (any object with a
            `model` and its `tokenizer`), which returns text only.
        max_tokens: Longest answer if delphi sets none.

    Raises:
        ImportError: delphi cannot be imported.
    """
    try:
        from delphi.clients.client import Client, Response
    except ImportError as error:
        need = "it is optional and pins vLLM: install eai-delphi==0.1.3 into an environment of its own"
        raise ImportError(f"delphi cannot be imported ({error}); {need}") from error
    is_local, default_max_tokens = hasattr(source, "tokenizer"), max_tokens

    class CaftClient(Client):
        async def generate(
            self, prompt, *, max_tokens=default_max_tokens, temperature=0.0, logprobs=False, top_logprobs=5
        ):
            messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            if is_local:
                settings = {"max_new_tokens": max_tokens, "temperature": temperature}
                return Response(generate(source.model, source.tokenizer, [messages], **settings)[0])
            settings = {"max_tokens": max_tokens, "temperature": temperature}
            settings["top_logprobs"] = top_logprobs if logprobs else None
            reply = await asyncio.to_thread(source.chat, messages, **settings)
            return Response(reply.text, reply.logprobs and [_token_logprobs(step) for step in reply.logprobs])

    return CaftClient(source.model.config.name_or_path if is_local else source.model)


def _token_logprobs(step: dict[str, float]) -> SimpleNamespace:
    """Return one token of `Reply.logprobs` in the form of the openai SDK, which delphi reads."""
    top = [SimpleNamespace(token=token, logprob=logprob) for token, logprob in step.items()]
    return SimpleNamespace(token=top[0].token, top_logprobs=top)
