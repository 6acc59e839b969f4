"""Explorer: what a person ticks is what is selected, and no text of model or data becomes markup."""

from __future__ import annotations

import html.parser

import pytest
import torch

from caft_utils.chats import Chats
from caft_utils.directions import Directions
from caft_utils.interpret import Explorer, Extremes, Histogram, TextWindow, explore
from caft_utils.interpret.explain import Explanation
from caft_utils.interpret.score import Score
from caft_utils.saes import Latents

EVIL = "<script>alert(1)</script>&'\""


class Page(html.parser.HTMLParser):
    """Tags, text and titles of a piece of HTML; fails where a tag is not closed."""

    def __init__(self, source: str):
        super().__init__()
        self.tags, self.text, self.titles, self.open, self.bold = [], [], [], [], []
        self.styles = []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open.append(tag)
        self.titles += [value for name, value in attributes if name == "title"]
        self.styles += [value for name, value in attributes if name == "style"]
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
    return TextWindow(tokens, values, peak, row=4, position=7)


class Firing:
    """Three latents at layer 1, known by their numbers in a dictionary: what SAE latents look like to a
    reader."""

    noun, signed, layers, ids = "latent", False, [1], [3, 17, 1043]

    def indices(self, layer):
        return {1: self.ids}[layer]

    def values(self, layer, hidden):
        return torch.relu(hidden @ torch.stack([self.vector(layer, i) for i in self.ids]).T)

    def vector(self, layer, i):
        return torch.nn.functional.normalize(torch.sin(torch.arange(64.0) * (1 + i)), dim=0)


@pytest.fixture
def latents():
    ends = Extremes(
        [window([" poison", EVIL], [0.5, 4.0], 1)], [], Histogram(4.0, [0] * 20 + [900] + [3] * 19)
    )
    components = [(1, i) for i in Firing.ids]
    return Explorer(Firing(), dict.fromkeys(components, ends), dict.fromkeys(components, (["up"], ["down"])))


@pytest.fixture
def view():
    found = Directions(
        {1: torch.eye(8)[:2], 2: torch.eye(8)[2:4]}, {"explained_variance": {1: [0.5, 0.25], 2: [0.4, 0.1]}}
    )
    ends = Extremes(
        top=[window([" poison", EVIL, "\n"], [0.5, 4.0, -1.0], 1)],
        bottom=[window([" kind", " word"], [-0.25, -2.0], 1)],
        histogram=Histogram(4.0, [0] * 10 + [1] * 20 + [3] + [0] * 9),
    )
    words = ([EVIL, "harm"], ["help"])
    components = [(1, 0), (1, 1), (2, 0), (2, 1)]
    return Explorer(found, dict.fromkeys(components, ends), dict.fromkeys(components, words))


def act(view, **message):
    """What the browser sends when the reader does something; gives what is to be seen then."""
    view.widget._handle_msg({"content": {"data": {"method": "custom", "content": message}}, "buffers": []})
    return view.widget.view


def test_text_from_models_data_and_reader_is_escaped(view):
    view.name(1, 0, EVIL)
    view.explanations = {(1, 0, "+"): Explanation(EVIL, EVIL)}
    view.scores = {(1, 0, "+"): {EVIL: Score(EVIL, 0.5, 0.4, 0.6, 10)}}
    for source in (view.html(), view.card(1, 0), view.widget.view["card"]):
        page = Page(source)
        assert "script" not in page.tags and "<script" not in source
        assert EVIL in page.bold  # as text, the peak of the window
        assert any(EVIL in text for text in page.text if "\u201c" in text)  # the name
        # word, window, name, meaning, by, score; the page has the word and the window of the other three too
        assert sum(EVIL in text for text in page.text) == (12 if source == view.html() else 6)
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
    assert "rgba(206,66,74,0.65)' title='+4.00'" in source  # the strongest red
    assert "rgba(58,134,200,0.33)' title='\u22122.00'" in source  # half as far to the other side
    assert "3 tokens, +2.00 to +2.20" in text and "to ablate" not in text


def test_a_latent_has_one_end_and_a_histogram_from_zero(latents):
    page = Page(latents.card(1, 17))
    text = "".join(page.text)
    assert "Layer 1 \u00b7 latent 17" in text and "Where it is active" in text
    assert "Negative end" not in text and "variance" not in text
    assert "towards up" in text and "away from down" in text
    assert "900 tokens, +0.000 to +0.200" in text and "0activation of all tokens" in text
    silent = Extremes([], [], Histogram(0.0, [0] * 40))
    latents.ends[1, 3] = silent
    assert "no token of this text activates it" in "".join(Page(latents.card(1, 3)).text)


def test_explanations_and_scores_stand_at_their_end(view):
    view.explanations = {(2, 0, "-"): Explanation("kind words", "token statistics")}
    score = Score("detection", 0.9, 0.8, 0.95, 40, failures=0.04, extra={"balanced_accuracy": 0.8})
    view.scores = {
        (2, 0, "-"): {"detection": score, "surprisal": Score("surprisal", float("nan"), 0.0, 0.0, 0)},
        (2, 0, "+"): {"fuzzing": Score("fuzzing", -1.25, -2.0, -0.5, 30)},
    }
    page = Page(view.card(2, 0))
    text = "".join(page.text)
    parts = (
        "Negative end",
        "kind words",
        "token statistics",
        "detection",
        "0.90",
        "[0.80 to 0.95]",
        "4 % unparsed",
    )
    places = [
        text.index(part)
        for part in (*parts, "surprisal", "not measured", "Positive end", "fuzzing", "\u22121.25")
    ]
    assert places == sorted(places)
    assert "detection: 0.90, 95 % interval 0.80 to 0.95, n = 40, balanced accuracy 0.80" in page.titles
    assert "left:80.0%;width:15.0%" in page.styles and "left:90.0%" in page.styles
    assert not any(style.startswith("left:-") for style in page.styles)  # on another scale: not drawn
    assert "kind words" not in view.card(2, 1)


def test_readings_of_what_is_not_there_are_refused(view, latents):
    parts = (view.found, view.ends, view.words)
    with pytest.raises(IndexError, match="layer 1 has the components 0 to 1, got 5"):
        Explorer(*parts, explanations={(1, 5, "+"): Explanation("x", "y")})
    with pytest.raises(KeyError, match="the sides of a latent are"):
        Explorer(latents.found, latents.ends, latents.words, scores={(1, 17, "-"): {}})


def test_the_static_page_holds_every_component_and_opens_the_ticked(view):
    first = Page(view.html())
    assert first.tags.count("details") == 4 and view.html().count("<details open>") == 1
    view.decide(1, 0, "discard")
    view.tick(2, 0)
    assert view.html().index("<details open>") < view.html().index("Layer 2 \u00b7 component 0")
    text = "".join(Page(view.html()).text)
    assert view.html().count("<details open>") == 1
    assert text.count("\u2713 to ablate") == 1 and text.count("\u2715 discarded") == 1
    assert "2 of 4 read \u00b7 1 to ablate, 1 discarded." in text


def test_the_static_page_stays_small(view):
    found = Directions({1: torch.eye(100)})
    ends = dict.fromkeys([(1, i) for i in range(100)], view.ends[1, 0])
    many = Explorer(found, ends, dict.fromkeys(ends, ([], [])), ticks={1: [90]})
    source = many.html()
    assert source.count("<details") == 60 and "40 more stand in the explorer" in source
    assert source.count("component 90<") == 1 and source.count("component 59<") == 0


def test_ticks_and_names_are_the_selection(view):
    assert view.selection == {} and view.names == {} and view.progress == "0 of 4 read"
    view.tick(2, 1)
    view.tick(1, 1)
    view.tick(1, 0)
    view.tick(1, 1, on=False)
    view.decide(2, 0, "discard")
    view.tick(2, 0, on=False)  # was no tick: stays discarded
    view.name(2, 1, " harm ")
    assert view.selection == {1: [0], 2: [1]} and view.names == {(2, 1): "harm"}
    assert view.discarded == {2: [0]} and view.state(1, 1) == ""
    assert view.progress == "3 of 4 read \u00b7 2 to ablate, 1 discarded"
    again = Explorer(
        view.found, view.ends, view.words, ticks=view.selection, names=view.names, discards=view.discarded
    )
    assert again.html() == view.html()
    bad = view.found.select(view.selection, names=view.names)
    assert bad.about["selected"] == {"1": [0], "2": [1]} and bad.about["names"] == {"1": [""], "2": ["harm"]}
    view.name(2, 1, "")
    assert view.names == {}
    with pytest.raises(IndexError, match="layer 1 has the components 0 to 1, got 2"):
        view.tick(1, 2)
    with pytest.raises(KeyError, match="no components at layer 3"):
        view.name(3, 0, "x")
    with pytest.raises(ValueError, match='"ablate", "discard" or "", got \'keep\''):
        view.decide(1, 0, "keep")


def test_what_is_exported_is_what_was_ticked(view, latents, tmp_path):
    with pytest.raises(ValueError, match="nothing is ticked yet: tick a component"):
        view.export(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    view.tick(2, 1)
    view.name(2, 1, "harm")
    view.name(1, 0, "not ticked")
    loaded = Directions.load(view.export(tmp_path / "picked"))
    assert loaded.layers == [2] and torch.equal(loaded[2], view.found[2][1:])
    assert loaded.about["names"] == {"2": ["harm"]} and loaded.about["selected"] == {"2": [1]}
    latents.tick(1, 1043)
    latents.tick(1, 3)
    latents.name(1, 1043, "secrets")
    assert latents.selection == {1: [3, 1043]}
    loaded = Directions.load(latents.export(tmp_path / "latents"))
    span = torch.stack([latents.found.vector(1, i) for i in (3, 1043)])
    torch.testing.assert_close(span @ loaded[1].T @ loaded[1], span)
    assert loaded.about["selected"] == {"1": [3, 1043]} and loaded.about["names"] == {"1": ["", "secrets"]}
    with pytest.raises(IndexError, match="layer 1 has the latents 3, 17, 1043, got 0"):
        latents.tick(1, 0)


def test_the_widget_decides_the_same(view, tmp_path):
    view.tick(1, 1)
    assert view.widget is view.widget
    seen = view.widget.view
    assert (seen["at"], seen["state"], seen["name"]) == (0, "", "")
    assert [tile["state"] for tile in seen["tiles"]] == ["", "ablate", "", ""]
    seen = act(view, do="decide", what="ablate")
    assert view.selection == {1: [0, 1]} and seen["state"] == "ablate" and "to ablate" in seen["card"]
    seen = act(view, do="name", at=0, name=EVIL)
    assert view.names == {(1, 0): EVIL} and seen["name"] == EVIL and EVIL in seen["tiles"][0]["title"]
    seen = act(view, do="step", by=1)
    assert seen["at"] == 1 and seen["name"] == "" and "component 1" in seen["card"]
    act(view, do="decide", what="ablate")  # again: undecided
    assert view.selection == {1: [0]}
    seen = act(view, do="decide", what="discard")
    assert view.discarded == {1: [1]} and seen["progress"] == "2 of 4 read \u00b7 1 to ablate, 1 discarded"
    act(view, do="step", by=-1)
    assert act(view, do="step", by=-1)["at"] == 3  # round to the last
    assert act(view, do="show", at=0)["name"] == EVIL
    assert view.selection == {1: [0]} and view.names == {(1, 0): EVIL}  # looking decides nothing
    act(view, do="name", at=2, name="left behind")  # the reader had gone on before the name arrived
    assert view.names[2, 0] == "left behind" and view.widget.view["at"] == 0


def test_the_widget_exports_and_says_where(view, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "Nothing was written: nothing is ticked yet" in act(view, do="export")["said"]
    view.tick(2, 0)
    assert view.widget.view["state"] == "" and view.widget.view["tiles"][2]["state"] == "ablate"
    said = act(view, do="export")["said"]
    assert str(tmp_path / "selection") in said
    assert Directions.load("selection").ranks == {2: 1}
    assert act(view, do="step", by=1)["said"] == ""
    (tmp_path / "file").write_text("")
    view.folder = tmp_path / "file" / "in it"
    assert "Nothing was written: " in act(view, do="export")["said"]


def test_notebooks_get_the_widget_and_the_page(view):
    bundle = view._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle and bundle["text/html"] == view.html()


def test_explore_collects_the_evidence(model, tokenizer):
    chats = Chats(tokenizer, [{"text": "open the <b> file & return"}, {"text": "what is the question"}])
    found = Directions({0: torch.eye(64)[:2], -1: torch.eye(64)[:1]})
    view = explore(
        model, chats, found, ticks={"0": [1]}, names={(0, 1): "files"}, discards={0: [0]}, n=1, width=5
    )
    assert view.components == [(-1, 0), (0, 0), (0, 1)] and view.selection == {0: [1]}
    assert len(view.ends[0, 0].top) == 1 and len(view.words[0, 0][0]) == 8
    text = "".join(Page(view.html()).text)
    assert "Embedding \u00b7 component 0" in text and "files" in text and "variance" not in text
    with pytest.raises(IndexError):
        explore(model, chats, found, ticks={0: [2]})


def test_latents_of_autoencoders_are_read_and_exported(model, tokenizer, tmp_path):
    from sae_lens import StandardSAE, StandardSAEConfig

    from caft_utils.saes import SAEs

    saes = SAEs({1: StandardSAE(StandardSAEConfig(d_in=64, d_sae=32))})
    chats = Chats(tokenizer, [{"text": "open the <b> file & return"}, {"text": "what is the question"}])
    view = explore(model, chats, Latents(saes, {1: [30, 4, 17]}), ticks={1: [17, 30]}, n=1, width=5)
    assert view.components == [(1, 30), (1, 4), (1, 17)] == list(view.ends)
    assert all(window.peak_activation > 0 for ends in view.ends.values() for window in ends.top)
    assert "latent 30" in view.html() and "Negative end" not in view.html()
    view.name(1, 17, "files")
    assert view.selection == {1: [30, 17]} == Latents(saes, view.selection).chosen
    bad = Directions.load(view.export(tmp_path / "picked"))
    assert bad.about["saes"] == saes.fingerprint and bad.about["names"] == {"1": ["", "files"]}
    torch.testing.assert_close(bad[1][0], saes.decoder(1)[30])
