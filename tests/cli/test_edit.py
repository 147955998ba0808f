"""What can be typed after ``oblik edit``, and what is said when it cannot be done."""

from __future__ import annotations

from datetime import date, datetime, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from oblik.cli import main
from oblik.paths import Home
from oblik.personas.persona import Consent, Persona, Scope
from oblik.personas.store import PersonaStore


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "frame.png"
    Image.new("RGB", (64, 64)).save(path)
    return str(path)


def test_without_a_persona_the_next_command_is_named(tmp_path: Path, image: str) -> None:
    result = CliRunner().invoke(main, ["--home", str(tmp_path / "home"), "edit", image, "--face"])
    assert result.exit_code == 2
    assert "oblik persona create" in result.output


@pytest.mark.parametrize("words", [["--strength", "0"], ["--strength", "1.5"], ["--mask", "nowhere.png"]])
def test_what_is_out_of_range_is_refused(image: str, words: list[str]) -> None:
    assert CliRunner().invoke(main, ["edit", image, *words]).exit_code == 2


def test_the_scope_is_asked_for_before_anything_is_done(home: Home, image: str) -> None:
    consent = Consent(
        kind="synthetic", signed_by="nobody", signed_on=date(2020, 1, 1), scopes=frozenset({Scope.portraits})
    )
    made = datetime(2026, 1, 2, tzinfo=timezone.utc)
    PersonaStore(home).create(
        Persona(slug="sitter", trigger="<oblik_sitter>", class_noun="woman", consent=consent, created_at=made)
    )
    result = CliRunner().invoke(
        main, ["--home", str(home.root), "edit", image, "--persona", "sitter", "--face"]
    )
    assert result.exit_code == 2
    assert "does not cover 'edit'" in result.output
    assert "hint:" in result.output
