"""Captions: the words of a stranger are those of the person without the token."""

from __future__ import annotations

import pytest

from oblik.datasets.captions import anybody, caption, without_token

SITTER = "<oblik_sitter>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("photo of <oblik_sitter> woman, in a park", "photo of a woman, in a park"),
        ("photo of <oblik_sitter> old woman", "photo of an old woman"),
        ("<oblik_sitter> smiling", "a smiling"),
        ("portrait of <oblik_sitter>", "portrait of a"),
        (" ", " "),
    ],
)
def test_without_the_token_it_is_a_stranger(text: str, expected: str) -> None:
    assert without_token(text, SITTER) == expected


@pytest.mark.parametrize("age", ["young", "old", ""])
def test_a_caption_without_the_token_is_the_one_of_a_stranger(age: str) -> None:
    words = {"age": age, "hair_color": "red", "scene": "park"}
    assert without_token(caption(words, token=SITTER, noun="woman"), SITTER) == caption(words, noun="woman")


def test_anybody_has_neither_the_token_nor_the_words_that_go_with_it() -> None:
    text = caption({"age": "old", "hair_color": "red", "scene": "park"}, token=SITTER, noun="woman")
    assert anybody(text, SITTER, "woman") == "photo of a woman, in a park"
    assert anybody("<oblik_sitter> actor laughing", SITTER, "actor") == "an actor"
    assert anybody(" ", SITTER, "woman") == " "
