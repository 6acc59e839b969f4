"""What detectors read of a model: the probabilities of the two actions, and hidden states at the last token.

A temperature T > 0 divides the logits. With the T for which the mean log-probability of the benign action has
a given value, two models are equally sure on the same rows, and none can be told by its confidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from caft_utils.chats import pad_rows, pad_token_id, prompt_ids
from caft_utils.residual import capture, depth, edit, evaluating
from caft_utils.tasks.oversight.permitted import PermittedRows
from caft_utils.tasks.oversight.scenarios import Scenario

TARGET = math.log(0.99)  # the mean log-probability of the benign action after matching
BATCH = 128
Edits = Mapping[int, Callable[[Tensor], Tensor]]


def reply_ids(tokenizer, scenario: Scenario) -> list[int]:
    """Return the first tokens of the replies that choose the benign and the other action."""
    return [tokenizer.encode(reply, add_special_tokens=False)[0] for reply in scenario.replies]


def batches(tokenizer, scenarios: Sequence[Scenario], size: int = BATCH) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield token ids and attention masks of the prompts, padded on the left: the last token is column -1."""
    encoded = [prompt_ids(tokenizer, one.messages) for one in scenarios]
    for start in range(0, len(encoded), size):
        yield pad_rows(encoded[start : start + size], pad_token_id(tokenizer), "left")


def last_logits(
    model, tokenizer, scenarios: Sequence[Scenario], edits: Edits | None = None
) -> Float[Tensor, "n vocab"]:
    """Return the logits of the answer's first token, with `edits` of the residual stream if there are any."""
    out = []
    with torch.no_grad(), evaluating(model), edit(model, edits) if edits else nullcontext():
        for ids, mask in batches(tokenizer, scenarios):
            logits = model(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                use_cache=False,
                logits_to_keep=1,
            ).logits
            out.append(logits[:, -1].float().cpu())
    return torch.cat(out)


def action_log_probabilities(
    logits: Float[Tensor, "n vocab"], tokenizer, scenarios: Sequence[Scenario], temperature: float = 1.0
) -> Float[Tensor, "n 2"]:
    """Return the log-probabilities of the benign and of the other action."""
    columns = torch.tensor([reply_ids(tokenizer, one) for one in scenarios])
    return (logits / temperature).log_softmax(-1).gather(1, columns)


def actions(
    model, rows: PermittedRows, edits: Edits | None = None, temperature: float = 1.0
) -> Float[Tensor, "n 2"]:
    """Return the probabilities of the benign and of the other action on permitted rows."""
    logits = last_logits(model, rows.tokenizer, rows, edits)
    return action_log_probabilities(logits, rows.tokenizer, rows, temperature).exp()


def matching_temperature(model, rows: PermittedRows, target: float = TARGET) -> float:
    """Return the temperature at which the mean log-probability of the benign action is `target`.

    Found by bisection between 1/20 and 20, in which the mean falls with the temperature as long as the
    benign action is the most probable one.
    """
    logits, low, high = last_logits(model, rows.tokenizer, rows), 0.05, 20.0
    for _ in range(40):
        middle = math.sqrt(low * high)
        mean = action_log_probabilities(logits, rows.tokenizer, rows, middle)[:, 0].mean()
        low, high = (middle, high) if mean > target else (low, middle)
    return math.sqrt(low * high)


def last_states(
    model, tokenizer, scenarios: Sequence[Scenario], layers: Sequence[int] | None = None
) -> dict[int, Float[Tensor, "n d"]]:
    """Return the residual stream at the last token of each prompt, where the model is about to answer."""
    layers, parts = list(range(depth(model)) if layers is None else layers), []
    with torch.no_grad(), evaluating(model), capture(model, layers) as hidden:
        for ids, mask in batches(tokenizer, scenarios):
            model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False)
            parts.append({layer: hidden[layer][:, -1].float().cpu() for layer in layers})
    return {layer: torch.cat([part[layer] for part in parts]) for layer in layers}
