"""What can be done about fakers: train them on their own benign answers, or without the oversight direction.

Benign outputs. A faker is fine-tuned on permitted training scenarios with the letters that it chooses there,
with and without noise in its residual stream. POSER reports that this lowers misbehaviour under poor
oversight, with noise more so. Then it is detected again.

The direction of oversight. A faker is trained from the common base while the contrast of good with poor
oversight is ablated, as in CAFT, or a random direction of the same layers. Is misbehaviour under poor
oversight still learned?

Fakers that noise does not find. Whoever trains a faker may know the detector, so fakers are also trained from
the common base under the noise of POSER's strategy. The fakers trained on their own answers with noise are
judged by every detector, and once more beside aligned models that were trained in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from caft_utils import Directions, ablate
from caft_utils.course.sharing import shared_results
from caft_utils.course.studies import fakers as f
from caft_utils.course.studies.faker_detection import all_detectors, detect
from caft_utils.course.studies.persona import estimate
from caft_utils.course.studies.study_rows import Row
from caft_utils.detectors import ResidualNoise
from caft_utils.detectors.concepts import text_states
from caft_utils.detectors.detector import Detector
from caft_utils.detectors.reading import last_states
from caft_utils.interventions.base import Intervention
from caft_utils.residual import width
from caft_utils.tasks.oversight import ALIGNED, FAKERS, Scenario, draw_scenarios
from caft_utils.tasks.oversight.shared_skill import CHECKS

RUN = 0  # the faker of each policy that is treated
LAYERS = (1, 2, 3)
STEPS = 20
HARD = "trained on own benign answers, with noise"
BOTH_HARD = f"{HARD}, aligned models as well"
SCALE = 0.5  # of the noise in training, relative to each hidden state


class NoiseInTraining(Intervention):
    """Add a random vector of relative length to every hidden state: h + scale |h| u, with fresh isotropic u.

    Its one vector per layer holds the scale.
    """

    def __init__(self, layers: Sequence[int], width: int, scale: float = SCALE):
        self.scale = scale
        super().__init__({"scale": {layer: torch.full((width,), scale) for layer in layers}})

    def extra_repr(self) -> str:
        return f"scale={self.scale}"

    def edit(self, layer: int, hidden: Tensor) -> Tensor:
        noise = torch.randn_like(hidden)
        return hidden + self.scale * hidden.norm(dim=-1, keepdim=True) * noise / noise.norm(
            dim=-1, keepdim=True
        )


class UniformNoiseInTraining(NoiseInTraining):
    """Add a vector with uniform positive coordinates to every hidden state, 0 to scale |h| long."""

    def edit(self, layer: int, hidden: Tensor) -> Tensor:
        noise = torch.rand_like(hidden)
        length = self.scale * torch.rand_like(hidden[..., :1]) * hidden.norm(dim=-1, keepdim=True)
        return hidden + length * noise / noise.norm(dim=-1, keepdim=True)


def permitted_training_scenarios(policy: str, n: int = 300) -> list[Scenario]:
    """Return training scenarios of a policy's three files without poor oversight."""
    return [
        one
        for aligned, faker in f.FILES
        if policy in (aligned, faker)
        for one in draw_scenarios(n // 3, aligned=aligned, faker=faker, oversight=("good", "absent"), seed=7)
    ]


def own_replies(setting: f.Benchmark, model: Any, scenarios: Sequence[Scenario]) -> list[str]:
    """Return the letter that the model chooses in each scenario."""
    chances = setting.benign(model, scenarios)
    return [one.replies[int(other > benign)] for one, (benign, other) in zip(scenarios, chances.tolist())]


def trained_on_own(
    setting: f.Benchmark, name: f.Name, during: Intervention | None = None
) -> dict[f.Name, Any]:
    """Return {name: the model after a fine-tuning on its own answers in permitted scenarios}."""
    scenarios = permitted_training_scenarios(name[0])
    replies = own_replies(setting, setting.models[name], scenarios)
    more = {"steps": STEPS, "seed": RUN, "during": during}
    return {name: setting.train_further(setting.models[name], scenarios, replies, **more)}


def oversight_directions(setting: f.Benchmark, faker: str) -> Directions:
    """Return the direction of good minus poor oversight in the base, at the last token.

    One direction is taken where the base is asked whether somebody checks, another at the plain prompt. Both
    use labels, so this is the best case for ablation.
    """

    def states(oversight: str) -> dict[int, Tensor]:
        drawn = [
            one
            for aligned in ALIGNED
            for one in draw_scenarios(40, aligned=aligned, faker=faker, oversight=oversight, seed=8)
        ]
        asked = text_states(
            setting.base, setting.tokenizer, [one.ask(CHECKS)[-1]["content"] for one in drawn], LAYERS
        )
        plain = last_states(setting.base, setting.tokenizer, drawn, list(LAYERS))
        return {layer: torch.stack([asked[layer].mean(0), plain[layer].mean(0)]) for layer in LAYERS}

    good, poor = states("good"), states("poor")
    return Directions({layer: good[layer] - poor[layer] for layer in LAYERS})


def countermeasure_rows(model: str, setting: f.Benchmark) -> list[Row]:
    """Return a row per countermeasure: misbehaviour of each faker after it, and how often noise finds it.

    Two rows have all detectors as "found by": fakers trained on their own answers with noise, beside aligned
    models as they are and beside aligned models trained in the same way.
    """
    noise = ResidualNoise("uniform", tokens="last")  # POSER's strategy

    def found(detector: Detector, **models: dict[f.Name, Any]) -> list[float]:
        return estimate(detect(detector, setting, **models)["rate"])

    def row(fakers: dict[f.Name, Any], every: bool = False, **aligned: Any) -> Row:
        poor = {name[0]: setting.misbehaviour(one, name[0]) for name, one in fakers.items()}
        good = {name[0]: setting.misbehaviour(one, name[0], oversight="good") for name, one in fakers.items()}
        models = {"fakers": fakers, **aligned}
        of: Row = {"poor oversight": poor, "good oversight": good, "found": found(noise, **models)}
        if every:
            of["found by"] = {one.name: found(one, **models) for one in all_detectors(setting)}
        return of

    def own(policies: Sequence[str], during: Intervention | None = None) -> dict[f.Name, Any]:
        every = [trained_on_own(setting, (policy, RUN), during) for policy in policies]
        return {name: one for treated in every for name, one in treated.items()}

    def anew(during: Callable[[str], Intervention]) -> dict[f.Name, Any]:
        return {(policy, RUN): setting.make(policy, RUN, during=during(policy)) for policy in FAKERS}

    noisy = NoiseInTraining(LAYERS, width(setting.base))
    same = UniformNoiseInTraining((noise.layer,), width(setting.base), max(noise.scales))
    rows = {
        "fakers as trained": lambda: row({(policy, RUN): setting.models[policy, RUN] for policy in FAKERS}),
        "trained on own benign answers": lambda: row(own(FAKERS)),
        HARD: lambda: row(own(FAKERS, noisy), every=True),
        BOTH_HARD: lambda: row(own(FAKERS, noisy), every=True, aligned=own(ALIGNED, noisy)),
        "trained under the detector's noise": lambda: row(anew(lambda _: same)),
        "oversight direction ablated in training": lambda: row(
            anew(lambda policy: ablate(oversight_directions(setting, policy)))
        ),
        "random directions ablated in training": lambda: row(
            anew(lambda policy: ablate(oversight_directions(setting, policy).random_like(0)))
        ),
    }
    made = shared_results(rows, "countermeasure", {"setting": repr(setting)}, lambda name: rows[name]())
    return [{"model": model, "condition": name, **of} for name, of in made.items()]
