"""``oblik likeness``: what is asked for is checked before anything is opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from oblik.cli import main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["accept"], "oblik persona create"),
        (["accept", "--images", "11"], "12<=x<=2400"),
        (["impostors"], "give either FOLDER or --generate"),
        (["impostors", ".", "--generate", "3"], "give either FOLDER or --generate"),
        (["measure", "nowhere"], "does not exist"),
        (["measure"], "oblik persona create"),
    ],
)
def test_wrong_words_are_answered_with_the_right_ones(tmp_path: Path, words: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["--home", str(tmp_path), "likeness", *words])
    assert result.exit_code == 2
    assert said in result.output
