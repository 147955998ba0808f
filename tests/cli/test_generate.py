"""What can be typed after ``oblik generate``, and what is said when it cannot be done."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from oblik.cli import main
from oblik.cli.generate import command, following, score_lines, seed_list
from oblik.generation.plan import Plan
from oblik.generation.record import Guards, Picture, Record


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sitter", "in a park"], "sitter"),
        (["sitter", "in a park", "--persona", "sitter"], "sitter"),
        (["sitter", "in a park", "--persona", "other"], "sitter or other?"),
        (["smiling", "in", "a", "park"], "in quotes"),
        ([], "Missing argument"),
    ],
)
def test_the_persona_may_stand_before_the_prompt(tmp_path: Path, words: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["--home", str(tmp_path), "generate", *words])
    assert result.exit_code == 2
    assert said in result.output


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


def measured(threshold: float | None, scores: list[float | None], mode: str = "fast") -> Record:
    """The record of a batch whose second picture is a copy."""
    plan = Plan.model_validate(
        {"pack": "tiny", "persona": None, "prompt": "in a park", "seeds": (1,), "mode": mode}
    )
    pictures = [
        Picture(file=f"{place}.png", seed=1, sha256="", likeness=score)
        for place, score in enumerate(scores, start=1)
    ]
    return Record(
        plan=plan, asked=plan, started_at=datetime.now(timezone.utc), token_ids=[], prompt_ids=[],
        lora_sha256=None, pack_version="1", libraries={}, device="cpu", free_vram_bytes=None, seconds={},
        pictures=pictures, threshold=threshold,
        guards=Guards(copying="1 of 9 too close", suspects=["2.png"], bleed="bleed not measured"),
    )  # fmt: skip


def test_each_picture_has_its_score_and_what_is_wrong_with_it() -> None:
    assert score_lines(measured(0.5, [0.51, 0.5, None, 0.204])) == [
        "    0.510  1.png  reached",
        "    0.500  2.png  reached, too close to one training photo",
        "  no face  3.png  below 0.500",
        "    0.204  4.png  below 0.500",
    ]
    many = score_lines(measured(0.5, [0.6] * 11))
    assert (len(many), many[-1]) == (8, "  and 4 more: oblik likeness measure names all")
    assert score_lines(measured(None, [None])) == [], "nobody measured"


@pytest.mark.parametrize(
    ("threshold", "scores", "mode", "said"),
    [
        (None, [None], "fast", "oblik likeness"),
        (0.5, [0.6, 0.5], "fast", "oblik gallery open"),
        (0.5, [0.6, None], "fast", "oblik generate 'in a park' --mode reliable"),
        (0.5, [0.3], "reliable", "oblik gallery open"),
    ],
)
def test_the_next_command_is_the_useful_one(
    threshold: float | None, scores: list[float | None], mode: str, said: str
) -> None:
    record = measured(threshold, scores, mode)
    assert following(record, "in a park") == said
    assert following(record, "in a park", "sitter") == said.replace("oblik", "oblik --persona sitter")


@pytest.mark.parametrize("weight", ["0", "0.3"])
def test_the_share_of_a_restored_face_is_checked_first(tmp_path: Path, weight: str) -> None:
    words = ["--home", str(tmp_path), "restore", "v001", "--weights", "none.pth", "--weight", weight]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "0<x<=0.2" in result.output
