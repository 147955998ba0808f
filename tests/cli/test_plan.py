"""``oblik plan``: the page in the documentation is what it prints; JSON, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from oblik.cli import main
from oblik.paths import Home

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
COMMAND = "oblik plan qwen-image-16gb --vram 16"


def run(home: Home, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--home", str(home.root), "plan", *arguments])


def test_the_page_shows_what_the_command_prints(home: Home) -> None:
    blocks = re.findall(r"```text\n\$ ([^\n]+)\n\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    shown = dict(blocks)[COMMAND]
    result = run(home, *COMMAND.split()[2:])
    assert result.exit_code == 0, result.output
    assert result.stdout == shown, f"put this into {PAGE.name}:\n{result.stdout}"
    assert not (home.root).exists(), "planning writes nothing"


def test_json_has_every_row_of_the_pack_on_this_machine(home: Home) -> None:
    result = run(home, "miniature", "--vram", "3", "--generate", "--batch", "2", "--json")
    assert result.exit_code == 0, result.output
    (plan,) = json.loads(result.stdout)
    assert (plan["asked"]["width_px"], plan["asked"]["purpose"]) == (128, "generate")
    assert plan["gave_up"] == "Gave up nothing."
    assert [stage["stage"] for stage in plan["stages"]] == ["encode text", "denoise", "decode"]
    assert plan["peak_bytes"] == max(sum(stage["rows"].values()) for stage in plan["stages"])
    assert plan["usable_bytes"] == 2 * 1024**3


def test_a_pack_that_was_not_pulled_is_planned_at_its_own_size(home: Home) -> None:
    result = run(home, "sd15", "--vram", "8", "--generate", "--json")
    assert result.exit_code == 0, result.output
    (plan,) = json.loads(result.stdout)
    assert (plan["asked"]["width_px"], plan["gave_up"]) == (512, "Gave up nothing.")
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("nowhere", "--vram", "16"), 2, "no pack called 'nowhere'"),
        (("miniature", "--vram", "16", "--size", "big"), 2, "'big' is not a size"),
        (("miniature", "--vram", "16", "--size", "130x128"), 2, "multiples of 16"),
        (("miniature", "--generate", "--vram", "1"), 3, "does not fit into 1.0 GiB"),
    ],
)
def test_what_it_refuses(arguments: tuple[str, ...], status: int, message: str, home: Home) -> None:
    result = run(home, *arguments)
    assert result.exit_code == status
    assert message in result.stderr
    assert "\nhint: " in result.stderr
