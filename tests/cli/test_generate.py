"""What can be typed after ``oblik generate``, and what is said when it cannot be done."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from oblik.cli import main
from oblik.cli.generate import command, seed_list


@pytest.mark.parametrize(
    ("typed", "seeds"), [("7", (7,)), ("1,2, 5", (1, 2, 5)), ("1-3,9", (1, 2, 3, 9)), ("0-0", (0,))]
)
def test_seeds(typed: str, seeds: tuple[int, ...]) -> None:
    assert seed_list(click.Context(command), command.params[0], typed) == seeds


@pytest.mark.parametrize("typed", ["", "a", "1-", "-3", "3-1", "1-2000", "1.5"])
def test_what_is_no_list_of_seeds_is_refused(typed: str) -> None:
    with pytest.raises(click.BadParameter):
        seed_list(click.Context(command), command.params[0], typed)


def test_seeds_and_a_count_contradict_each_other(tmp_path: Path) -> None:
    words = ["--home", str(tmp_path), "generate", "in a park", "--seeds", "1", "--count", "3"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "--seeds excludes" in result.output


@pytest.mark.parametrize("words", [["generate", "in a park"], ["train"], ["likeness"]])
def test_without_a_persona_the_next_command_is_named(tmp_path: Path, words: list[str]) -> None:
    result = CliRunner().invoke(main, ["--home", str(tmp_path), *words])
    assert result.exit_code == 2
    assert "oblik persona create" in result.output


def test_a_stranger_has_no_reliable_mode(tmp_path: Path) -> None:
    words = ["--home", str(tmp_path), "generate", "in a park", "--mode", "reliable", "--no-token"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "--no-token shows a stranger" in result.output


def test_a_picture_follows_one_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    words = ["--home", str(tmp_path), "generate", "in a park"]
    controls = [f"--pose={tmp_path / 'a.png'}", f"--control={tmp_path / 'a.png'}"]
    result = CliRunner().invoke(main, [*words, *controls])
    assert result.exit_code == 2
    assert "exclude each other" in result.output
    assert "does not exist" in CliRunner().invoke(main, [*words, "--depth", str(tmp_path / "b.png")]).output
