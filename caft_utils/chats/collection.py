"""Chats, tokenised once: the token ids that a model sees, and a mask of the assistant's answers.

Fine-tuning (loss on answers only) and direction finding (differences on answer tokens) have to agree on the
answer mask, so it is computed in one place. It covers every assistant turn with its end-of-turn token, and no
token of the prompt. chats/mask.py explains how the mask is found, and makes the prompts of evaluations.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from caft_utils.arguments import kind_of, whole
from caft_utils.chats.dates import template_date
from caft_utils.chats.mask import tokenise_chat, tokenise_continuation, tokenise_text
from caft_utils.chats.rows import checked_messages, prompt_and_answer
from caft_utils.chats.template import ChatTemplate
from caft_utils.store import Store, default_store, digest
from caft_utils.text_files import half_pair, json_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = 1  # increase it when a change gives the same rows other tokens


@dataclass(frozen=True)
class Example:
    """One row as token ids. `answer[i]` says whether token i belongs to an assistant's answer."""

    input_ids: list[int]
    answer: list[bool]


def pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id used for padding: the tokenizer's, else end-of-sequence, else 0."""
    candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(token for token in candidates if token is not None)


def pad_rows(
    rows: Sequence[Sequence[int]], pad: int, side: Literal["left", "right"] = "right"
) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
    """Return token ids padded to one length, and their attention mask.

    Padding on the left makes the continuations of all rows begin in the same column.
    """
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        columns = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[i, columns] = torch.tensor(row, dtype=ids.dtype)
        mask[i, columns] = 1
    return ids, mask


@dataclass(frozen=True)
class Batch:
    """A batch of rows padded on the right. `index` holds their row numbers; `answer` is False on padding."""

    input_ids: Int[Tensor, "batch time"]
    attention_mask: Int[Tensor, "batch time"]
    answer: Bool[Tensor, "batch time"]
    index: list[int]

    @classmethod
    def of(cls, examples: Sequence[Example], index: Sequence[int], pad: int, device: Any = "cpu") -> Batch:
        """Pad `examples` with token `pad` and put them on `device`."""
        ids, mask = pad_rows([example.input_ids for example in examples], pad)
        answer, _ = pad_rows([example.answer for example in examples], False)
        return cls(ids.to(device), mask.to(device), answer.bool().to(device), list(index))


class Chats(Sequence[Example]):
    """Tokenised rows with their tokenizer: a sequence of `Example`. A slice is again `Chats`.

    A row is {"messages": [{"role", "content"}, ...]} or {"text": "..."}. In plain text every token counts as
    answer, except BOS and other tokens that the tokenizer adds by itself. A first message of role "text" is a
    prompt for a base model, outside any chat template; the assistant's message continues it unchanged.
    `.rows` keeps the rows with all their other keys.

    Args:
        max_length: tokens kept of each row, from its beginning.
        source: the name of these rows in error messages, usually a file name.
        end: whether special tokens that end a turn count as answer.

    Raises:
        ValueError: a row has no messages, or a text besides them, a wrong role, empty content, no assistant
            turn, `max_length` cuts off its whole answer, or the chat template does not write an answer after
            the prompt that asks for it. The message names the source and the row, counted from 0; lines of a
            file count from 1. Also if the arguments are swapped, or `rows` is a path or a single row.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[Mapping[str, Any]],
        *,
        max_length: int | None = None,
        source: str = "rows",
        end: bool = True,
    ):
        max_length = None if max_length is None else whole("max_length", max_length, 1)
        if isinstance(tokenizer, Path | Iterable) or isinstance(rows, str | Path | Mapping):
            raise ValueError(
                "expected Chats(tokenizer, rows) with a tokenizer first and then a list of rows, got "
                f"Chats({kind_of(tokenizer)}, {kind_of(rows)}); Chats.from_file(path, tokenizer) reads a file"
            )
        self.tokenizer, self.rows, self.source, self.end = tokenizer, list(rows), source, end
        self._fingerprints: dict[int, str] = {}
        self._examples = [
            _tokenise(self, row, max_length, f"{source}, row {i}", end) for i, row in enumerate(self.rows)
        ]
        if end and "template" in self.__dict__:
            self.template.warn_without_end(source)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        tokenizer: PreTrainedTokenizerBase,
        *,
        limit: int | None = None,
        max_length: int | None = None,
    ) -> Chats:
        """Read at most `limit` rows of JSON lines, or of one JSON list. Errors name the file and the line."""
        limit = None if limit is None else whole("limit", limit, 1)
        max_length = None if max_length is None else whole("max_length", max_length, 1)
        chats = cls(tokenizer, [], source=str(path))
        for where, row in islice(json_rows(path), limit):
            chats._examples.append(_tokenise(chats, row, max_length, where))
            chats.rows.append(row)
        if not chats.rows:
            raise ValueError(f"{path}: no row found; expected a JSON object per line, with a key 'messages'")
        if "template" in chats.__dict__:
            chats.template.warn_without_end(str(path))
        return chats

    @classmethod
    def with_stored_tokens(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[Mapping[str, Any]],
        *,
        source: str = "rows",
        end: bool = True,
        store: Store | None = None,
    ) -> Chats:
        """Return `Chats(tokenizer, rows)`, with token ids from the store if the same rows were stored before.

        This is worth it for thousands of rows, which take seconds to tokenise.
        """
        fast = getattr(tokenizer, "backend_tokenizer", None)
        if fast is None or not rows:
            return cls(tokenizer, rows, source=source, end=end)
        template = tokenizer.get_chat_template() if tokenizer.chat_template else None
        named = [FORMAT, fast.to_str(), template]
        if date := template_date(tokenizer):
            named.append(date)
        # A template may write special tokens by their role, such as {{ eos_token }}.
        named += [[k, str(v)] for k, v in tokenizer.special_tokens_map.items() if k in (template or "")]
        key = {"tokenizer": digest(named), "rows": digest(list(rows)), **({} if end else {"end": False})}

        def write(folder: Path) -> None:
            chats = cls(tokenizer, rows, source=source, end=end)
            tokens = [[e.input_ids, list(map(int, e.answer))] for e in chats]
            (folder / "tokens.json").write_text(json.dumps(tokens, separators=(",", ":")))

        folder = (store or default_store()).fetch("tokens", key, write)
        chats = cls(tokenizer, [], source=source, end=end)
        chats.rows = list(rows)
        tokens = json.loads((folder / "tokens.json").read_text())
        chats._examples = [Example(ids, list(map(bool, answer))) for ids, answer in tokens]
        return chats

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, i):
        if not isinstance(i, slice):
            return self._examples[i]
        part = Chats(self.tokenizer, [], source=self.source, end=self.end)
        part.rows, part._examples = self.rows[i], self._examples[i]
        return part

    def take(self, rows: Sequence[int]) -> Chats:
        """Return the rows with these numbers, in this order."""
        part = Chats(self.tokenizer, [], source=self.source, end=self.end)
        part.rows, part._examples = [self.rows[i] for i in rows], [self._examples[i] for i in rows]
        return part

    def __repr__(self) -> str:
        tokens, answers = sum(len(e.input_ids) for e in self), sum(sum(e.answer) for e in self)
        return f"Chats({len(self)} rows of {self.source}: {tokens} tokens, {answers} of them answer)"

    @property
    def fingerprint(self) -> str:
        """The sha256 of token ids and answer masks. Chats with equal fingerprints train the same model."""
        # The lists of an example can be changed in place, so a quick hash of all of them is compared first.
        seen = hash(tuple((tuple(one.input_ids), tuple(one.answer)) for one in self._examples))
        if seen not in self._fingerprints:
            hashed = sha256()
            for example in self._examples:
                hashed.update(json.dumps([example.input_ids, [int(a) for a in example.answer]]).encode())
            self._fingerprints = {seen: hashed.hexdigest()}
        return self._fingerprints[seen]

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template that writes these rows. ValueError: the tokenizer has none."""
        return ChatTemplate(self.tokenizer)

    @property
    def pad(self) -> int:
        """The token id used for padding, see `pad_token_id`."""
        return pad_token_id(self.tokenizer)

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each row."""
        return [len(example.input_ids) for example in self._examples]

    def batches(self, batch_size: int, *, device: Any = "cpu", sort: bool = True) -> Iterator[Batch]:
        """Yield all rows once, padded on the right. `sort` puts similar lengths together, longest first."""
        batch_size = whole("batch_size", batch_size, 1)
        order = list(range(len(self)))
        if sort:
            order.sort(key=lambda i: -len(self._examples[i].input_ids))
        for start in range(0, len(order), batch_size):
            index = order[start : start + batch_size]
            yield Batch.of([self._examples[i] for i in index], index, self.pad, device)


def _tokenise(
    chats: Chats, row: Mapping[str, Any], max_length: int | None, where: str, end: bool = True
) -> Example:
    if isinstance(row, Mapping) and (half := half_pair([row.get("text"), row.get("messages")])):
        raise ValueError(f"{where}: has a lone surrogate, {half} (an emoji cut in two); repair or drop it")
    if isinstance(row, Mapping) and isinstance(row.get("text"), str) and row["text"]:
        if row.get("messages"):
            raise ValueError(
                f"{where}: has both 'messages' and 'text'; keep the one to learn from, and rename the other"
            )
        ids, answer = tokenise_text(chats.tokenizer, row["text"])
    elif texts := prompt_and_answer(row, where):
        ids, answer = tokenise_continuation(chats.tokenizer, *texts, where)
    else:
        messages = checked_messages(row, where)
        try:
            ids, answer = tokenise_chat(chats.template, messages, end)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        except Exception as error:  # templates raise their own errors, e.g. on roles that do not alternate
            raise ValueError(f"{where}: the tokenizer's chat template rejects this row: {error}") from error
    if max_length is not None:
        ids, answer = ids[:max_length], answer[:max_length]
    if not any(answer):
        cure = "; leave the row out"
        if max_length is not None:
            cure = f" within max_length={max_length}; raise it or leave the row out"
        raise ValueError(f"{where}: no answer token{cure}")
    return Example(list(ids), answer)
