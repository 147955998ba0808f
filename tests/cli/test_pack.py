"""``oblik pack`` on a small pack of three files."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from oblik.cli import main
from oblik.paths import Home


def run(home: Home, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--home", str(home.root), "--pack", "tiny", *arguments])


@pytest.mark.usefixtures("tiny_pack")
def test_list_marks_the_chosen_pack(home: Home) -> None:
    lines = run(home, "pack", "list").output.splitlines()
    assert any(line.startswith("* tiny 3  128 px") for line in lines)
    assert sum(line.startswith("*") for line in lines) == 1


def test_info_names_parts_licences_and_limits(home: Home, tiny_pack: Path) -> None:
    result = run(home, "pack", "info")
    assert result.exit_code == 0, result.output
    assert "tiny 3 (qwen_image, 128 px)" in result.output
    assert str(tiny_pack) in result.output
    assert all(
        text in result.output for text in ("vae", "tokenizer", "Apache-2.0", "Limits: knows three words")
    )


def test_verify_reads_every_byte(home: Home, tiny_pack: Path) -> None:
    whole = run(home, "pack", "verify", "tiny")
    assert (whole.exit_code, whole.output) == (0, "tiny 3: 3 files, all as in the manifest\n")
    (tiny_pack / "vae" / "model.bin").write_bytes(b"Weights" * 100)
    broken = run(home, "pack", "verify")
    assert broken.exit_code == 3
    assert "model.bin" in broken.stderr
    assert "\nhint: " in broken.stderr


@pytest.mark.parametrize("verb", ["info", "verify"])
def test_an_unknown_pack_is_an_error_with_a_hint(verb: str, home: Home) -> None:
    result = run(home, "pack", verb, "nowhere")
    assert result.exit_code in (2, 3)
    assert "nowhere" in result.stderr
    assert "\nhint: " in result.stderr
