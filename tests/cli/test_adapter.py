"""Faces of people are learned from with their permission only."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from oblik.cli import main


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "either FOLDER or --rendered"), (["."], "--permission says"), ([".", "--rendered", "3"], "either")],
)
def test_from_whom_and_with_what_right_must_be_said(tmp_path: Path, words: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["--home", str(tmp_path), "adapter", "train", *words])
    assert result.exit_code == 2
    assert said in result.output


def test_nothing_was_trained_yet(tmp_path: Path) -> None:
    words = ["--home", str(tmp_path), "adapter"]
    assert "none was trained here" in CliRunner().invoke(main, [*words, "list"]).output
    result = CliRunner().invoke(main, [*words, "remove", "miniature"])
    assert result.exit_code == 2
    assert "oblik adapter list" in result.output
