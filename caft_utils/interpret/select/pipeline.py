"""Read directions automatically: examples, explanations, scores and selection in one call.

It runs the four steps of notebook 05 without a person: collect windows in which a direction is active and
windows in which it is not, write an explanation from one half of the rows, score it by detection on the other
half, and select by the hints that occur where the direction is active.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from caft_utils.arguments import checked
from caft_utils.features import Features
from caft_utils.interpret.examples import collect_examples
from caft_utils.interpret.explain import TokenStatistics
from caft_utils.interpret.score import Detection
from caft_utils.interpret.score.word_overlap import WordOverlap
from caft_utils.interpret.select.automatic import AutomaticSelection, select_automatically
from caft_utils.interpret.select.concepts import Concept
from caft_utils.interpret.select.relevance import HintTestRelevance
from caft_utils.models import fingerprint
from caft_utils.stored_results import fetch_result

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.store import Store

FORMAT = 1  # increase it when the same key would give a different selection
FILE = "selection.json"


@checked
def read_and_select(
    model: nn.Module,
    chats: Chats,
    features: Features,
    concept: Concept,
    *,
    n: int = 100,
    seed: int = 0,
    store: Store | None = None,
) -> AutomaticSelection:
    """Select the features whose activating text is about the concept.

    Args:
        chats: text for the model to read. Half is used for the explanations and half for their scores.
        features: `Directions`, or the `Latents` of sparse autoencoders.
        n: windows of each kind.
        seed: determines the split of the rows and the sampled windows.
        store: where the result is cached; default: see `default_store`.

    Returns:
        The selection with a reason for each explanation. It is empty if no explanation is relevant enough.
    """
    examples = collect_examples(model, chats, features, n=n, seed=seed, store=store)
    key = features.fingerprint and {
        "format": FORMAT,
        "model": fingerprint(model),
        "data": chats.fingerprint,
        "features": features.fingerprint,
        "noun": features.kind,
        "concept": asdict(concept),
        "n": n,
        "seed": seed,
    }

    def compute() -> AutomaticSelection:
        explain, score = TokenStatistics(), Detection(WordOverlap())
        explanations = {key: explain(each) for key, each in examples.items()}
        scores = {key: score(explanations[key], each) for key, each in examples.items()}
        relevance = HintTestRelevance(examples)
        return select_automatically(explanations, concept, relevance_fn=relevance, scores=scores)

    return fetch_result(
        "selection",
        key or None,
        compute,
        save=lambda selection, folder: selection.save(Path(folder) / FILE),
        load=lambda folder: AutomaticSelection.load(Path(folder) / FILE),
        models=(model,),
        store=store,
    )
