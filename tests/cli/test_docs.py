"""The generated pages are those in docs/, and say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from oblik.cli import COMMANDS, main
from oblik.cli.docs import cli_page, pages, settings_page
from oblik.settings import Settings
from oblik.training.config import TrainConfig

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


@pytest.mark.parametrize("name", ["cli.md", "settings.md"])
def test_the_page_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name], "stale: run `make docs`"


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
