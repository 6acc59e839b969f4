"""Rankings of SAE latents: a score for every latent, and what all rankings record.

    attribution         sum f * (v . d metric / d h)    first-order contribution of the latent to `metric`
    latent_difference   mean (f(h_tuned) - f(h_base))   increase of the activation by fine-tuning
    difference_latents  mean  f(h_tuned - h_base)       activation of the SAE on the change itself

Here f is the activation of a latent, v its decoder row (of length 1) and h the hidden state. A score is
positive where the latent RAISES the metric, or is more active in the tuned model. (arXiv 2507.16795, section
4.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.chats.reading import key_of_place
from caft_utils.features import Selection
from caft_utils.models import fingerprint
from caft_utils.residual import Tokens, width
from caft_utils.saes.collection import SAEs
from caft_utils.sinks import Sinks, key_of_sinks
from caft_utils.stored_results import fetch_tensors

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.store import Store

FORMAT = 1  # increase it when the same key would give different scores

End = Literal["+", "-", "both"]
"""Which scores count: positive ones, negative ones, or both."""


@dataclass(frozen=True)
class LatentRanking:
    """A score for every latent, {layer: [F]}. `about` has the method and the meaning of the sign."""

    scores: Mapping[int, Float[Tensor, " F"]]
    about: Mapping[str, Any] = field(default_factory=dict)

    def top(self, n: int | None = None, end: End = "+") -> list[tuple[int, int, float]]:
        """Return the n most extreme (layer, latent, score) over all layers, default all of them.

        Scores of zero and scores of the other sign never count, so there can be fewer than n.
        """
        return self._top(list(self.scores), n, end)

    def order(self, end: End = "both") -> list[tuple[int, int]]:
        """Return (layer, latent) of all non-zero scores, the most extreme first."""
        return [(layer, latent) for layer, latent, _ in self.top(end=end)]

    def per_layer(self, n: int, end: End = "+") -> Selection:
        """Return the n most extreme latents of each layer, which `Latents` and `sae_directions` take.

        The selection is ordered by |score| over all layers. Layers without a score at this end are left out.
        """
        entries = [entry for layer in self.scores for entry in self._top([layer], n, end)]
        entries.sort(key=lambda entry: -abs(entry[2]))
        return Selection([(layer, latent) for layer, latent, _ in entries])

    def _top(self, layers: Sequence[int], n: int | None, end: End) -> list[tuple[int, int, float]]:
        if end not in End.__args__ or (n is not None and n < 1):
            raise ValueError(f"expected n >= 1 and end '+', '-' or 'both', got n={n} and end={end!r}")
        entries = []
        for sign in {"+": (1,), "-": (-1,), "both": (1, -1)}[end]:
            for layer in layers:
                values, latents = (sign * self.scores[layer]).sort(descending=True, stable=True)
                pairs = zip(latents[:n].tolist(), values[:n].tolist())
                entries += [(layer, latent, sign * value) for latent, value in pairs if value > 0]
        return sorted(entries, key=lambda entry: -abs(entry[2]))[:n]


def fetch_ranking(
    about: dict[str, Any],
    compute: Callable[[], Mapping[int, Tensor]],
    *,
    models: Sequence[nn.Module],
    store: Store | None,
    metric: str | None = "",
) -> LatentRanking:
    """Return the ranking with this `about`. Scores that are not in the store come from `compute`.

    Args:
        metric: the fingerprint of a metric, empty for the default metric. None: do not store the scores.
    """
    key = (
        None if metric is None else {"format": FORMAT, **about} | ({"fingerprint": metric} if metric else {})
    )

    def named_scores() -> dict[str, Tensor]:
        return {str(layer): scores for layer, scores in compute().items()}

    scores = fetch_tensors("ranking", key, named_scores, models=models, store=store)
    return LatentRanking({layer: scores[str(layer)] for layer in sorted(map(int, scores))}, about)


def check_width(model: nn.Module, saes: SAEs) -> None:
    """Raise a ValueError if the SAEs and the model's residual stream differ in width."""
    if saes.width != width(model):
        raise ValueError(
            f"the SAEs read width {saes.width}, but {type(model).__name__} has width "
            f"{width(model)}; were they trained on another model?"
        )


def provenance(
    method: str, saes: SAEs, chats: Chats, tokens: Tokens, sinks: Sinks, *, positive: str, **models
) -> dict[str, Any]:
    """Return the `about` of a ranking. `positive` says what a positive score means."""
    return {
        "method": method,
        "positive": positive,
        **{name: fingerprint(model) for name, model in models.items()},
        "saes": saes.fingerprint,
        "data": chats.fingerprint,
        **key_of_place(tokens, chats),
        **key_of_sinks(sinks, saes.width),
    }
