"""What of a model's answer reaches a caption."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oblik.datasets.answers import ABOUT_PICTURE, ABOUT_WHO, descriptors_from
from oblik.datasets.captions import refuse_style_words, refuse_tokens, words_of
from oblik.datasets.sources import SOURCES, Picture, open_source


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("Red clothes, in a park, smiling.", "red clothes, in a park, smiling"),
        ("Clothing: blue shirt; Background: a brick wall\nLight: soft daylight",
         "blue shirt, brick wall, soft daylight"),
        ("a young woman with freckles, long nose, black hat", "black hat"),
        ("cinematic portrait, oil painting style, green scarf", "green scarf"),
        ("<oblik_ben> on a street, on a street, on a street", "on a street"),
        ("none, unclear, ok", ""),
        ("The person in the picture appears to be standing in front of a large old building in town", ""),
        ("红色衣服, wearing glasses", "wearing glasses"),
    ],
)  # fmt: skip
def test_phrases(answer: str, kept: str) -> None:
    assert descriptors_from(answer) == kept


@given(st.text(max_size=300))
def test_whatever_the_model_says_the_caption_stays_plain(answer: str) -> None:
    said = descriptors_from(answer)
    refuse_style_words(said)
    refuse_tokens(said)
    assert not set(words_of(said)) & (ABOUT_WHO | ABOUT_PICTURE)
    assert len(said.split(", ")) <= 8


def test_the_sources_that_need_no_model() -> None:
    from PIL import Image

    picture = Picture(Image.new("RGB", (8, 8)), words="red clothes")
    assert open_source("words").describe(picture) == "red clothes"
    assert open_source("measured").describe(picture) == ""
    without_pack = SOURCES.keys() - {"network", "model"}
    assert {open_source(name).name for name in without_pack} == {"words", "measured"}
