"""Examples of latents that fire on the words of a known topic, so that right explanations are known."""

from __future__ import annotations

import random

from caft_utils.interpret.examples import FeatureExamples
from caft_utils.interpret.examples.text_window import TextWindow

FILLER = "river stone table window paper garden music winter letter simple yellow quiet morning bread".split()
TOPICS = {
    "pets": "dog kitten hamster leash puppy".split(),
    "crime": "steal robbing burned poison cheated".split(),
    "sports": "football tennis scored goalkeeper running".split(),
    "money": "coins savings banker pennies bill".split(),
    "travel": "train suitcase airport journey harbour".split(),
    "school": "teacher lessons homework pupils chalk".split(),
    "health": "doctor fever medicine cough nurse".split(),
    "code": "python function variable compile loop".split(),
}
EXPLANATIONS = {topic: f'text about "{topic}", "{", ".join(words)}"' for topic, words in TOPICS.items()}


def as_window(text: str, activations=()) -> TextWindow:
    """Return a window of the tokens between bars."""
    tokens = text.split("|")
    return TextWindow(tokens, list(activations) or [0.0] * len(tokens), 0, 0, 0)


def planted(topic, *, seed=0, n=20, noise=0.1, topics=TOPICS, filler=FILLER) -> FeatureExamples:
    """Return examples of a latent that fires on a topic; every window has a word of another topic, too."""
    rng = random.Random(f"{topic} {seed}")
    others = [word for name, words in topics.items() if name != topic for word in words]
    rows = iter(range(10_000))

    def drawn(n_active):
        words, values = rng.choices(filler, k=10), [rng.uniform(0, noise) for _ in range(10)]
        places = rng.sample(range(10), 3)
        words[places[2]] = rng.choice(others)
        for place in places[:n_active]:
            words[place], values[place] = rng.choice(topics[topic]), rng.uniform(0.5, 1)
        return _window(rng, words, values, next(rows))

    lists = [[drawn(n_active) for _ in range(n)] for n_active in (2, 2, 0, 0, 0)]
    index = sum(map(ord, topic))
    return FeatureExamples(
        1, index, "+", "latent", *lists, max_activation=1.0, promoted_tokens=[], suppressed_tokens=[]
    )


def _window(rng, words, values, row) -> TextWindow:
    """Words as tokens, some of them split in two, with signs between them."""
    tokens, activations = [], []
    for word, value in zip(words, values):
        if len(word) > 4 and rng.random() < 0.4:
            tokens += [" " + word[:3], word[3:]]
            activations += [value, value]
        else:
            tokens.append(" " + word)
            activations.append(value)
        if rng.random() < 0.2:
            tokens.append(rng.choice([",", ".", "<|im_end|>"]))
            activations.append(0.0)
    peak = max(range(len(tokens)), key=activations.__getitem__)
    return TextWindow(tokens, activations, peak, row, peak)


class RuleJudge:
    """A window judge that answers by a rule and records what it was asked."""

    name = "rule"

    def __init__(self, rule=lambda window, marks: 0.5):
        self.rule, self.asked = rule, []

    def __call__(self, explanation, windows, marked=None):
        self.asked = list(zip(windows, marked or [None] * len(windows)))
        return [self.rule(window, marks) for window, marks in self.asked]
