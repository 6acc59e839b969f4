"""Directions: always orthonormal, never silently wrong, and on disk either whole or refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from caft_utils.directions.subspace import Directions


def gram_error(directions: Directions) -> float:
    grams = [directions[layer] @ directions[layer].T for layer in directions.layers]
    return max((gram - torch.eye(len(gram))).abs().max().item() for gram in grams)


@pytest.fixture
def found() -> Directions:
    generator = torch.Generator().manual_seed(0)
    rows = {layer: torch.randn(k, 16, generator=generator) for layer, k in {5: 2, 1: 4, -1: 3}.items()}
    about = {
        "method": "test",
        "explained_variance": {layer: [1 / (i + 2) for i in range(len(q))] for layer, q in rows.items()},
        "mean": {1: [0.5] * 16},
    }
    return Directions(rows, about)


def test_what_is_held(found):
    assert found.layers == [-1, 1, 5] and found.ranks == {-1: 3, 1: 4, 5: 2} and found.width == 16
    assert found[1].dtype == torch.float32 and "1: 4" in repr(found) and "width 16" in repr(found)
    with pytest.raises(KeyError, match=r"no directions at layer 2; there are some at \[-1, 1, 5\]"):
        found[2]


def test_it_reads_like_a_mapping_of_layers_to_rows(found):
    assert list(found) == found.layers and len(found) == 3 and dict(found.items()).keys() == {-1, 1, 5}
    assert 1 in found and 2 not in found and all(rows is found[layer] for layer, rows in found.items())


@pytest.mark.parametrize("selection", [{1: 0}, [0]])
def test_a_selection_of_another_form_is_refused(found, selection):
    with pytest.raises(ValueError, match="a selection must be"):
        found.select(selection)


def test_half_precision_and_single_vectors_are_taken():
    directions = Directions({1: torch.tensor([3.0, 4.0], dtype=torch.bfloat16, requires_grad=True)})
    torch.testing.assert_close(directions[1], torch.tensor([[0.6, 0.8]]))
    assert not directions[1].requires_grad


@pytest.mark.parametrize(
    "rows, message",
    [
        ({}, "no directions given"),
        (torch.eye(4), r"directions must be given as \{layer: tensor \[k, d\]\}.*got Tensor"),
        ({1: torch.zeros(0, 8)}, r"layer 1: expected a tensor \[k, d\]"),
        ({1: torch.randn(2, 2, 8)}, r"layer 1: expected a tensor \[k, d\]"),
        ({1: torch.eye(8)[:2], 2: torch.eye(9)[:2]}, "one width, got {1: 8, 2: 9}"),
        (
            {4: torch.tensor([[1.0, 0.0], [float("nan"), 1.0]])},
            r"layer 4: rows \[1\] have values that are not finite",
        ),
        ({4: torch.tensor([[float("inf"), 0.0]])}, "not finite"),
        ({1: torch.zeros(1, 8)}, "layer 1: row 0 is zero"),
        (
            {1: torch.stack([torch.ones(8), torch.arange(8.0), torch.ones(8)])},
            "row 2 is zero or a combination",
        ),
        ({1: torch.randn(4, 3)}, "combination of the rows before"),
    ],
)
def test_wrong_rows_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        Directions(rows)


@pytest.mark.parametrize("about", [{"model": object()}, {"norm": float("nan")}])
def test_provenance_that_no_file_can_hold_is_refused(about):
    with pytest.raises(ValueError, match="must be JSON"):
        Directions({1: torch.eye(3)[:1]}, about)


def test_select_takes_rows_with_their_facts(found):
    bad = found.select({1: [3, 0], 5: [1], -1: []}, names={(1, 3): "harm"})
    assert torch.equal(bad[1], found[1][[3, 0]]) and bad.ranks == {1: 2, 5: 1}
    assert bad.about["selected"] == {"1": [3, 0], "5": [1]}
    assert bad.about["names"] == {"1": ["harm", ""], "5": [""]}
    assert bad.about["explained_variance"] == {"1": [1 / 5, 1 / 2], "5": [1 / 3]}
    assert "selected" not in found.about
    again = bad.select({1: [0]})
    assert again.about["selected"] == {"1": [3]} and again.about["names"] == {"1": ["harm"]}


def test_union_spans_both_and_counts_shared_directions_once(found):
    other = Directions({1: torch.stack([found[1][1], torch.ones(16)]), 2: torch.eye(16)[:1]})
    both = found.union(other)
    assert both.ranks == {-1: 3, 1: 5, 2: 1, 5: 2} and gram_error(both) < 1e-6
    torch.testing.assert_close(both[1][:4], found[1], atol=1e-6, rtol=0)
    ones = torch.ones(16)
    torch.testing.assert_close((both[1] @ ones) @ both[1], ones, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="width 16 and 3"):
        found.union(Directions({1: torch.eye(3)[:1]}))


def test_union_with_itself_is_the_same_span(found):
    both = found.union(found)
    assert both.ranks == found.ranks
    for layer in found.layers:
        torch.testing.assert_close(both[layer], found[layer], atol=1e-6, rtol=0)


def test_random_like_has_the_same_shape_and_its_seed(found):
    a, b = found.random_like(0), found.random_like(1)
    assert a.ranks == found.ranks and a.width == found.width and gram_error(a) < 1e-6
    assert a.fingerprint == found.random_like(0).fingerprint != b.fingerprint


def test_random_like_does_not_depend_on_the_last_bits_of_the_directions(found):
    nearly = Directions({layer: found[layer] * (1 + 1e-6) + 1e-7 for layer in found.layers})
    assert nearly.fingerprint != found.fingerprint
    assert nearly.random_like(3).fingerprint == found.random_like(3).fingerprint
    # Drawn once, pinned for ever: the same seed is the same direction on every machine.
    drawn = Directions({2: torch.eye(4)[:1]}).random_like(0)[2]
    pinned = torch.tensor([[-0.056397, 0.349157, -0.866145, -0.353132]])
    torch.testing.assert_close(drawn, pinned, atol=1e-5, rtol=0)


def test_random_directions_like_random_directions_are_others(found):
    once = found.random_like(0)
    assert once.random_like(0).fingerprint not in (once.fingerprint, found.random_like(1).fingerprint)


def test_cosine(found):
    vector = 7 * found[1][2] + 7 * found[1][0]
    torch.testing.assert_close(
        found.cosine(1, vector), torch.tensor([0.5, 0, 0.5, 0]).sqrt(), atol=1e-6, rtol=0
    )
    with pytest.raises(ValueError, match="zero vector"):
        found.cosine(1, torch.zeros(16))
    with pytest.raises(ValueError, match="width 16"):
        found.cosine(1, torch.ones(15))


def test_save_and_load_give_the_same_bits(found, tmp_path):
    loaded = Directions.load(found.save(tmp_path / "new" / "folder"))
    assert loaded.ranks == found.ranks and loaded.about == found.about
    assert all(torch.equal(loaded[layer], found[layer]) for layer in found.layers)
    assert loaded.fingerprint == found.fingerprint


def test_saving_again_replaces_the_old_and_leaves_nothing_else(found, tmp_path):
    mine = tmp_path / "directions-mine.safetensors.txt", tmp_path / "directions-0123456789abcdef.safetensors"
    for path in mine:
        path.write_text("kept")
    found.save(tmp_path)
    newer = found.select({1: [0]})
    newer.save(tmp_path)
    assert Directions.load(tmp_path).fingerprint == newer.fingerprint
    new = {"directions.json", f"directions-{newer.fingerprint[:16]}.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == new | {path.name for path in mine}


@pytest.mark.parametrize("card", ['{"tensors": "../mine"}', '{"tensors": "mine"}', "[]", "[" * 99999, "{"])
def test_saving_over_a_card_that_is_none_removes_no_file(found, tmp_path, card):
    (tmp_path / "mine").write_text("kept")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").write_text("kept")
    (tmp_path / "new" / "directions.json").write_text(card)
    Directions.load(found.save(tmp_path / "new"))
    assert (tmp_path / "mine").exists() and (tmp_path / "new" / "mine").exists()


def test_a_save_that_fails_leaves_the_old_one_whole(found, tmp_path, monkeypatch):
    found.save(tmp_path)
    from pathlib import Path

    replace = Path.replace

    def fail_on_json(self, target):
        if str(target).endswith(".json"):
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_on_json)
    with pytest.raises(OSError):
        found.select({1: [0]}).save(tmp_path)
    assert Directions.load(tmp_path).fingerprint == found.fingerprint


def damage(folder, kind):
    card, tensors = folder / "directions.json", next(folder.glob("*.safetensors"))
    data = tensors.read_bytes()
    if kind == "truncated tensors":
        tensors.write_bytes(data[:-5])
    elif kind == "one bit of a tensor":
        tensors.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    elif kind == "no tensors":
        tensors.unlink()
    elif kind == "truncated card":
        card.write_text(card.read_text()[:-20])
    elif kind == "edited card":
        card.write_text(card.read_text().replace('"test"', '"best"'))
    elif kind == "other format":
        card.write_text(json.dumps(json.loads(card.read_text()) | {"format": 99}))


@pytest.mark.parametrize(
    "kind",
    "truncated tensors,one bit of a tensor,no tensors,truncated card,edited card,other format".split(","),
)
def test_damaged_files_are_refused(found, tmp_path, kind):
    found.save(tmp_path)
    damage(tmp_path, kind)
    with pytest.raises(ValueError, match="damaged; find or save them again"):
        Directions.load(tmp_path)


def test_an_empty_folder_is_not_directions(tmp_path):
    with pytest.raises(FileNotFoundError, match="no directions.json"):
        Directions.load(tmp_path)


def test_values_are_projections_in_the_dtype_of_the_hidden_states(found):
    hidden = torch.randn(7, 16, dtype=torch.float64)
    assert found.values(1, hidden).dtype == torch.float64
    torch.testing.assert_close(found.values(1, hidden), hidden @ found[1].double().T)
    assert found.indices(1) == [0, 1, 2, 3] and torch.equal(found.vector(5, 1), found[5][1])


@pytest.mark.parametrize("layer", [-2, 1.7, True, "one", None])
def test_layers_are_whole_numbers_from_the_embedding_on(layer):
    with pytest.raises(ValueError, match="layer"):
        Directions({layer: torch.eye(4)[:1]})


def test_a_layer_may_be_a_scalar_of_numpy_or_a_key_of_json_but_not_twice():
    assert Directions({np.int64(1): torch.eye(4)[:1], "2": torch.eye(4)[:1]}).layers == [1, 2]
    with pytest.raises(ValueError, match="given twice"):
        Directions({1: torch.eye(4)[:1], "1": torch.eye(4)[1:2]})


def test_random_directions_of_a_numpy_seed_are_those_of_the_number():
    directions = Directions({1: torch.eye(4)[:1]})
    assert directions.random_like(np.int64(3)).fingerprint == directions.random_like(3).fingerprint


def test_a_cosine_needs_a_finite_vector():
    with pytest.raises(ValueError, match="finite"):
        Directions({1: torch.eye(4)[:1]}).cosine(1, torch.full((4,), float("inf")))
