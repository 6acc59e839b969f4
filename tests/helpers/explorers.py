"""Explorers with hand-made windows, and a parser of the HTML that they show."""

from __future__ import annotations

import html.parser

import torch

from caft_utils.directions import Directions
from caft_utils.interpret import Explorer, Extremes, Histogram, TextWindow

EVIL = "<script>alert(1)</script>&'\""


class Page(html.parser.HTMLParser):
    """Tags, text and titles of a piece of HTML; fails where a tag is not closed."""

    def __init__(self, source: str):
        super().__init__()
        self.tags, self.text, self.titles, self.open, self.bold = [], [], [], [], []
        self.styles, self.styled_titles = [], []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open.append(tag)
        self.titles += [value for name, value in attributes if name == "title"]
        self.styles += [value for name, value in attributes if name == "style"]
        named = dict(attributes)
        if "style" in named and "title" in named:
            self.styled_titles.append((named["style"], named["title"]))
        assert not any(name.startswith("on") for name, _ in attributes)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] == "b":
            self.bold.append(data)


def text_window(tokens, values, peak):
    return TextWindow(tokens, values, peak, row=4, position=7)


class Firing:
    """Three latents at layer 1, known by their numbers in a dictionary: what SAE latents look like to a
    reader."""

    kind, two_sided, layers, ids = "latent", False, [1], [3, 17, 1043]
    fingerprint = None

    def indices(self, layer):
        return {1: self.ids}[layer]

    def values(self, layer, hidden):
        return torch.relu(hidden @ torch.stack([self.vector(layer, i) for i in self.ids]).T)

    def vector(self, layer, i):
        return torch.nn.functional.normalize(torch.sin(torch.arange(64.0) * (1 + i)), dim=0)

    def projection_rows(self, layer):
        return None

    def select(self, selection, names=None):
        rows = {layer: torch.stack([self.vector(layer, i) for i in ids]) for layer, ids in selection.items()}
        called = {layer: [names.get((layer, i), "") for i in ids] for layer, ids in selection.items()}
        return Directions(rows, {"selected": dict(selection), "names": called})


def latent_explorer() -> Explorer:
    """Return an explorer of three latents at layer 1."""
    ends = Extremes(
        [text_window([" poison", EVIL], [0.5, 4.0], 1)], [], Histogram(4.0, [0] * 20 + [900] + [3] * 19)
    )
    components = [(1, i) for i in Firing.ids]
    return Explorer(Firing(), dict.fromkeys(components, ends), dict.fromkeys(components, (["up"], ["down"])))


def component_explorer() -> Explorer:
    """Return an explorer of two components at each of two layers."""
    found = Directions(
        {1: torch.eye(8)[:2], 2: torch.eye(8)[2:4]}, {"explained_variance": {1: [0.5, 0.25], 2: [0.4, 0.1]}}
    )
    ends = Extremes(
        top=[text_window([" poison", EVIL, "\n"], [0.5, 4.0, -1.0], 1)],
        bottom=[text_window([" kind", " word"], [-0.25, -2.0], 1)],
        histogram=Histogram(4.0, [0] * 10 + [1] * 20 + [3] + [0] * 9),
    )
    words = ([EVIL, "harm"], ["help"])
    components = [(1, 0), (1, 1), (2, 0), (2, 1)]
    return Explorer(found, dict.fromkeys(components, ends), dict.fromkeys(components, words))
