"""The generated pages are those in docs/, and say what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from oblik.cli import COMMANDS, main
from oblik.cli.docs import cli_page, settings_page
from oblik.settings import Settings
from oblik.training.config import TrainConfig

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


def test_the_pages_are_up_to_date(tmp_path: Path) -> None:
    """In a process of its own, as `make docs` writes them: click keeps the help option of a first call."""
    subprocess.run([sys.executable, "-m", "oblik.cli.docs", str(tmp_path)], check=True)
    written = {page.name: page.read_text(encoding="utf-8") for page in tmp_path.iterdir()}
    there = {name: (DOCS / name).read_text(encoding="utf-8") for name in ("cli.md", "settings.md")}
    assert written == there, "stale: run `make docs`"


def test_every_command_has_a_section() -> None:
    page = cli_page()
    assert [name for name in COMMANDS if f"### oblik {name}\n" not in page] == []


def test_every_setting_has_a_row() -> None:
    page = settings_page()
    for name in Settings.model_fields:
        assert f"| `{name}` | `OBLIK_{name.upper()}` | " in page
    page, _, training = page.partition("## Of one training")
    flags = set(re.findall(r"`(--[\w-]+)` \|", page))
    assert flags == {option.opts[0] for option in main.params if option.name in Settings.model_fields}
    assert "--face-stack" in flags
    assert all(f"| `{name}` |" in training for name in TrainConfig.model_fields)
    assert "| `rank` | `--rank` | `16` |" in training
