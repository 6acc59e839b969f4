"""Explorer: what a person ticks is what is selected, and no text of model or data becomes markup."""

from __future__ import annotations

import html.parser

import pytest
import torch

from caft_utils.directions import Directions
from caft_utils.interpret import Ends, Explorer, Histogram, Window, explore
from caft_utils.rows import Chats

EVIL = "<script>alert(1)</script>&'\""
VOID = {"rect"}


class Page(html.parser.HTMLParser):
    """Tags, text and titles of a piece of HTML; fails where a tag is not closed."""

    def __init__(self, source: str):
        super().__init__()
        self.tags, self.text, self.titles, self.open, self.bold = [], [], [], [], []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open.append(tag)
        self.titles += [value for name, value in attributes if name == "title"]
        assert not any(name.startswith("on") for name, _ in attributes)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] == "b":
            self.bold.append(data)


def window(tokens, values, peak):
    return Window(tokens, values, peak, row=4, position=7)


@pytest.fixture
def view():
    found = Directions(
        {1: torch.eye(8)[:2], 2: torch.eye(8)[2:4]}, {"explained_variance": {1: [0.5, 0.25], 2: [0.4, 0.1]}}
    )
    ends = Ends(
        top=[window([" poison", EVIL, "\n"], [0.5, 4.0, -1.0], 1)],
        bottom=[window([" kind", " word"], [-0.25, -2.0], 1)],
        histogram=Histogram(4.0, [0] * 10 + [1] * 20 + [3] + [0] * 9),
    )
    words = ([EVIL, "harm"], ["help"])
    components = [(1, 0), (1, 1), (2, 0), (2, 1)]
    return Explorer(found, dict.fromkeys(components, ends), dict.fromkeys(components, words))


def test_text_from_models_data_and_reader_is_escaped(view):
    view.name(1, 0, EVIL)
    for source in (view.html(), view.card(1, 0)):
        page = Page(source)
        assert "script" not in page.tags and "<script" not in source
        assert EVIL in page.bold  # as text, the peak of the window
        assert any(EVIL in text for text in page.text if "\u201c" in text)  # the name
        assert "harm" in page.text and "\u23ce" in page.text


def test_a_card_shows_share_values_and_both_ends(view):
    page = Page(view.card(2, 1))
    text = "".join(page.text)
    assert "Layer 2 \u00b7 component 1" in text and "10.0 % of the variance" in text
    places = [text.index(part) for part in ("Negative end", " word", "Positive end", " poison")]
    assert places == sorted(places)
    assert {"+4.00", "+0.500", "\u22121.00", "\u22122.00", "row 4, token 7"} <= set(page.titles)
    assert " word" in page.bold and " poison" not in page.bold
    source = view.card(2, 1)
    assert "rgba(178,24,43,0.60)' title='+4.00'" in source  # the strongest red
    assert "rgba(33,102,172,0.30)' title='\u22122.00'" in source  # half as far to the other side
    assert "to ablate" not in text


def test_the_static_page_holds_every_component_and_opens_the_ticked(view):
    first = Page(view.html())
    assert first.tags.count("details") == 4 and view.html().count("<details open>") == 1
    view.tick(2, 0)
    assert view.html().index("<details open>") < view.html().index("Layer 2 \u00b7 component 0")
    assert view.html().count("<details open>") == 1 and view.html().count("to ablate") == 1


def test_ticks_and_names_are_the_selection(view):
    assert view.selection == {} and view.names == {}
    view.tick(2, 1)
    view.tick(1, 1)
    view.tick(1, 0)
    view.tick(1, 1, on=False)
    view.name(2, 1, " harm ")
    assert view.selection == {1: [0], 2: [1]} and view.names == {(2, 1): "harm"}
    bad = view.found.select(view.selection, names=view.names)
    assert bad.about["selected"] == {"1": [0], "2": [1]} and bad.about["names"] == {"1": [""], "2": ["harm"]}
    view.name(2, 1, "")
    assert view.names == {}
    with pytest.raises(IndexError, match="layer 1 has components 0 to 1, got 2"):
        view.tick(1, 2)
    with pytest.raises(KeyError, match="no directions at layer 3"):
        view.name(3, 0, "x")


def test_the_widget_decides_the_same(view):
    view.tick(1, 1)
    assert view.widget is view.widget
    c = view.controls
    card = view.widget.children[-1]
    assert c["choice"].value == (1, 0) and c["ablate"].value is False
    c["ablate"].value = True
    c["name"].value = EVIL
    assert view.selection == {1: [0, 1]} and view.names == {(1, 0): EVIL}
    assert "to ablate" in card.value and "<script" not in card.value
    c["ahead"].click()
    assert c["choice"].value == (1, 1) and c["ablate"].value is True and c["name"].value == ""
    assert "component 1" in card.value
    c["ablate"].value = False
    c["back"].click()
    c["back"].click()  # round to the last
    assert c["choice"].value == (2, 1) and view.selection == {1: [0]}
    c["choice"].value = (1, 0)
    assert c["name"].value == EVIL and c["ablate"].value is True
    assert view.selection == {1: [0]} and view.names == {(1, 0): EVIL}  # looking decides nothing


def test_notebooks_get_the_widget_and_the_page(view):
    bundle = view._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle and bundle["text/html"] == view.html()


def test_explore_collects_the_evidence(model, tokenizer):
    chats = Chats(tokenizer, [{"text": "open the <b> file & return"}, {"text": "what is the question"}])
    found = Directions({0: torch.eye(64)[:2], -1: torch.eye(64)[:1]})
    view = explore(found, model, chats, ticks={"0": [1]}, names={(0, 1): "files"}, n=1, width=5)
    assert view.components == [(-1, 0), (0, 0), (0, 1)] and view.selection == {0: [1]}
    assert len(view.ends[0, 0].top) == 1 and len(view.words[0, 0][0]) == 8
    text = "".join(Page(view.html()).text)
    assert "Embedding \u00b7 component 0" in text and "files" in text and "variance" not in text
    with pytest.raises(IndexError):
        explore(found, model, chats, ticks={0: [2]})
