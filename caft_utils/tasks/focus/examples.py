"""Examples with a core and a spurious feature, and how often the two agree.

Every value s of the spurious feature goes with one label, y_s. The data are drawn by

    S ~ uniform over the values,    Y = y_S with probability rho, else uniform over the other labels,

and the core feature then shows Y, so that rho = P(Y = y_S). With k labels, rho = 1/k makes the two features
independent, and rho = 1 makes them agree in every row. (arXiv 2410.22944, figure 4.)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from caft_utils.arguments import number, text, whole


@dataclass(frozen=True)
class FocusExample:
    """One input with what its features say.

    text: the input without any instruction.
    label: y, the label of the core feature.
    spurious_label: y_s, the label that goes with the value of the spurious feature.
    labels: all possible answers, in a fixed order.
    core, spurious: what instructions call the two features.
    value: the value of the spurious feature.
    """

    text: str
    label: str
    spurious_label: str
    labels: tuple[str, ...]
    core: str
    spurious: str
    value: str = ""

    def __post_init__(self):
        object.__setattr__(self, "labels", tuple(self.labels))
        for name in ("text", "core", "spurious"):
            text(name, getattr(self, name))
        for name in ("label", "spurious_label"):
            if getattr(self, name) not in self.labels:
                raise ValueError(
                    f"{name} {getattr(self, name)!r} is not among the labels {', '.join(self.labels)}"
                )


@dataclass(frozen=True)
class SpuriousFeature:
    """A spurious feature: its name in instructions, and the label of each value.

    Raises:
        ValueError: there is no value.
    """

    name: str
    values: Mapping[str, str]

    def __post_init__(self):
        if not self.values:
            raise ValueError(f"the spurious feature {self.name!r} has no values")

    def flipped(self, labels: Sequence[str]) -> SpuriousFeature:
        """Return the feature with every value moved to the next label in `labels`, the last to the first."""
        following = dict(zip(labels, [*labels[1:], labels[0]]))
        return replace(self, values={value: following[label] for value, label in self.values.items()})


Render = Callable[[str, SpuriousFeature, str, random.Random], str]
"""(label, feature, value, rng) -> a text whose core feature shows the label and which has the value."""


def draw_examples(
    feature: SpuriousFeature | Sequence[SpuriousFeature],
    render: Render,
    labels: Sequence[str],
    *,
    core: str,
    rho: float,
    n: int,
    rng: random.Random,
    flip: bool = False,
) -> list[FocusExample]:
    """Return n examples in which the label is that of the spurious value with probability rho.

    Args:
        feature: one feature, or several of which each example has one, drawn at random.
        render: makes the text.
        core: what instructions call the core feature.
        flip: draw labels by the flipped map. `spurious_label` keeps its meaning, so that a model that learned
            the map meets data in which it points elsewhere.

    Raises:
        ValueError: rho outside 0..1, fewer than two labels, or a value with an unknown label.
    """
    rho, n, labels = number("rho is a share of the rows and", rho, 0, 1), whole("n", n, 1), tuple(labels)
    features = [feature] if isinstance(feature, SpuriousFeature) else list(feature)
    if len(set(labels)) < 2:
        raise ValueError(f"two labels or more are needed, got {labels}")
    if unknown := {label for one in features for label in one.values.values()} - set(labels):
        raise ValueError(f"values have labels {sorted(unknown)}, which are not among {', '.join(labels)}")
    examples = []
    for _ in range(n):
        one = rng.choice(features)
        value = rng.choice(list(one.values))
        cue = (one.flipped(labels) if flip else one).values[value]
        label = cue if rng.random() < rho else rng.choice([other for other in labels if other != cue])
        made = render(label, one, value, rng)
        examples.append(FocusExample(made, label, one.values[value], labels, core, one.name, value))
    return examples


def agreement(examples: Sequence[FocusExample]) -> float:
    """Return the share of examples whose label is that of the spurious value, an estimate of rho."""
    return sum(one.label == one.spurious_label for one in examples) / len(examples)
