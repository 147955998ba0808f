"""Words of the user become words of captions."""

from __future__ import annotations

from pathlib import Path

import pytest

from oblik.datasets.words import descriptors_in, read_words, words_for
from oblik.errors import InvalidInput


@pytest.mark.parametrize(
    ("words", "found", "rest"),
    [
        ("red clothes, smiling", {"clothing": "red", "expression": "smile"}, ""),
        ("wearing glasses and hat", {"accessories": "glasses, hat"}, ""),
        ("glasses, scarf, hand at face", {"accessories": "glasses, scarf, hand"}, ""),
        ("in a park, side light", {"scene": "park", "light": "side"}, ""),
        ("in a studio, studio light", {"scene": "studio", "light": "studio"}, ""),
        ("profile view, half length", {"view": "profile", "framing": "half length"}, ""),
        ("a dog, Laughing, two cups", {"expression": "laugh"}, "a dog, two cups"),
        ("neutral", {"expression": "neutral"}, ""),
        ("  , ,", {}, ""),
    ],
)
def test_phrases(words: str, found: dict[str, str], rest: str) -> None:
    assert descriptors_in(words) == (found, rest)


def test_the_table_wins_over_the_file_beside_the_photo(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text(
        '﻿file,words\na.jpg,"smiling, red clothes"\nsub\\b.jpg,hat,scarf\n', encoding="utf-8"
    )
    (tmp_path / "a.txt").write_text("serious", encoding="utf-8")
    (tmp_path / "c.txt").write_text("serious\nin a park\n", encoding="utf-8")
    table = read_words(tmp_path)
    assert words_for(tmp_path, "a.jpg", table) == "smiling, red clothes"
    assert words_for(tmp_path, "sub/b.jpg", table) == "hat, scarf"
    assert words_for(tmp_path, "c.jpg", table) == "serious in a park"
    assert words_for(tmp_path, "d.jpg", table) == ""


@pytest.mark.parametrize("name", ["captions.csv", "a.txt"])
def test_styles_are_refused_with_the_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a.jpg,an oil painting\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match=rf"{name}: the style word 'oil painting'"):
        words_for(tmp_path, "a.jpg", read_words(tmp_path))


def test_text_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(InvalidInput, match="UTF-8"):
        read_words(tmp_path)
