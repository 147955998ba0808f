"""`oblik order`, `preset`, `gallery`, `report` and `smoke`, as typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from oblik.cli import main
from oblik.flows.logs import Journal
from oblik.generation.plan import Plan
from oblik.generation.record import Picture, Record, write_record
from oblik.paths import Home, sha256_file
from oblik.personas.persona import Consent, Persona, Scope
from oblik.personas.store import PersonaStore

Oblik = Callable[..., Result]
ORDER = "name: spring\npersona: sitter\ntype: series\nprompt: in a park\ncount: 2\n"
NOW = datetime(2026, 1, 2, 12, tzinfo=timezone.utc)


@pytest.fixture
def oblik(home: Home, tiny_pack: Path) -> Oblik:
    def run(*arguments: str | Path) -> Result:
        typed = ["--home", str(home.root), "--pack", "tiny", *map(str, arguments)]
        return CliRunner().invoke(main, typed)

    return run


def sign(home: Home, slug: str = "sitter", scope: Scope = Scope.portraits) -> None:
    consent = Consent(
        kind="synthetic", signed_by="nobody", signed_on=date(2026, 1, 1), scopes=frozenset({scope})
    )
    trigger = f"<oblik_{slug}>"
    PersonaStore(home).create(Persona(slug=slug, trigger=trigger, consent=consent, created_at=NOW))
    PersonaStore(home).use(slug)


def paint(home: Home, name: str = "v001") -> Path:
    """A batch in the gallery."""
    folder = home.persona("sitter").gallery / name
    folder.mkdir(parents=True)
    Image.new("RGB", (16, 16), "red").save(folder / "01-seed1.png")
    plan = Plan(
        pack="tiny", persona="sitter", prompt="<oblik_sitter> in a park", seeds=(1,), steps=36, guidance=3.5
    )
    picture = Picture(file="01-seed1.png", seed=1, sha256=sha256_file(folder / "01-seed1.png"))
    record = Record(
        plan=plan, asked=plan, started_at=NOW, token_ids=[7], prompt_ids=[], lora_sha256=None,
        pack_version="3", libraries={}, device="cpu", free_vram_bytes=None, seconds={}, pictures=[picture],
    )  # fmt: skip
    write_record(record, folder)
    return folder


@pytest.fixture
def order(tmp_path: Path) -> Path:
    path = tmp_path / "order.yaml"
    path.write_text(ORDER, encoding="utf-8")
    return path


@pytest.mark.parametrize("verb", ["run", "check"])
def test_a_mistake_in_the_file_is_told_with_its_line(oblik: Oblik, order: Path, verb: str) -> None:
    order.write_text(ORDER + "colour: red\nplan: {steps: 400}\n", encoding="utf-8")
    said = oblik("order", verb, order)
    assert said.exit_code == 2
    assert "order.yaml:6: colour: is no word of an order" in said.output
    assert "order.yaml:7: plan.steps: 1 to 150, not 400" in said.output
    assert "hint: correct the file (oblik order schema" in said.output, "and not the command just given"


@pytest.mark.parametrize("verb", ["run", "check"])
def test_consent_is_asked_before_pack_and_lora(oblik: Oblik, home: Home, order: Path, verb: str) -> None:
    sign(home, scope=Scope.chat)
    (home.packs / "tiny" / "pack.json").unlink()
    said = oblik("order", verb, order)
    assert said.exit_code == 2
    assert "consent does not cover 'portraits'" in said.output
    assert not list(home.persona("sitter").gallery.rglob("*"))


def test_an_order_of_somebody_unknown(oblik: Oblik, order: Path) -> None:
    assert "oblik persona" in oblik("order", "run", order).output


def test_the_schema_can_be_written_for_an_editor(oblik: Oblik, tmp_path: Path) -> None:
    printed = json.loads(oblik("order", "schema").stdout)
    assert printed["title"] == "Oblik order"
    assert oblik("order", "schema", "--out", tmp_path / "order.schema.json").exit_code == 0
    assert json.loads((tmp_path / "order.schema.json").read_text()) == printed


def test_presets_are_listed_shown_saved_and_exported(oblik: Oblik, home: Home, tmp_path: Path) -> None:
    listed = oblik("preset", "list").output
    for name in ("preview", "standard", "high", "max", "experimental", "fast", "reliable"):
        assert f"\n{name} " in f"\n{listed}"
    saved = oblik("preset", "save", "mine", "--from", "high", "--set", "steps=36", "--set", "sampler=euler")
    assert saved.output.strip() == str(home.root / "presets" / "mine.toml")
    shown = oblik("preset", "show", "mine").output
    assert "steps = 36" in shown
    assert "pause_s = 2.5" in shown
    assert "#   guidance = 3.5  (2.5 to 4 may be asked for)" in shown
    assert "[ranges.stable_diffusion]" in shown
    assert "(your own)" in oblik("preset", "list").output
    assert oblik("preset", "export", "mine", tmp_path).exit_code == 0
    assert oblik("preset", "show", tmp_path / "mine.toml").exit_code == 0
    again = oblik("preset", "save", "mine")
    assert again.exit_code == 2
    assert "--replace" in again.output


def test_a_preset_can_be_made_from_pictures_one_likes(oblik: Oblik, home: Home) -> None:
    sign(home)
    assert oblik("preset", "save", "liked", "--record", paint(home)).exit_code == 0
    text = (home.root / "presets" / "liked.toml").read_text()
    assert "steps = 36" in text
    assert "sitter" not in text
    assert "park" not in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["save", "mine", "--set", "steps"], "is not like steps=36"),
        (["save", "mine", "--set", "steps=400"], "150"),
        (["save", "mine", "--set", "cfg=7"], "a plan has no 'cfg'"),
        (["show", "splendid"], "no preset is called"),
    ],
)
def test_presets_that_cannot_be(oblik: Oblik, words: list[str], said: str) -> None:
    result = oblik("preset", *words)
    assert result.exit_code == 2
    assert said in result.output


def test_the_gallery_lists_draws_exports_and_deletes(oblik: Oblik, home: Home, tmp_path: Path) -> None:
    sign(home)
    assert "oblik generate" in oblik("gallery", "list").output
    folder = paint(home)
    assert "1 pictures, not measured" in oblik("gallery", "list").output
    page = Path(oblik("gallery", "open", "--no-browser").output.strip())
    assert page.is_file()
    assert "1 files" not in oblik("gallery", "export", "v002", "--to", tmp_path / "out").output
    assert "1 files" in oblik("gallery", "export", "v001", "--to", tmp_path / "out").output
    assert oblik("gallery", "delete", "v001").exit_code == 1, "nobody said yes"
    assert folder.is_dir()
    assert oblik("gallery", "delete", "v001", "--yes").output == "1 pictures deleted\n"
    assert not folder.exists()
    whats = [json.loads(line)["what"] for line in (home.logs / "audit.jsonl").read_text().splitlines()]
    assert whats.count("gallery export") == 4
    assert whats.count("gallery delete") == 2


def test_pictures_of_somebody_who_took_consent_back_can_be_deleted_and_not_exported(
    oblik: Oblik, home: Home, tmp_path: Path
) -> None:
    sign(home, scope=Scope.chat)
    paint(home)
    refused = oblik("gallery", "export", "v001", "--to", tmp_path / "out")
    assert (refused.exit_code, (tmp_path / "out").exists()) == (2, False)
    assert oblik("gallery", "delete", "v001", "--yes").exit_code == 0


def test_the_report_of_a_day(oblik: Oblik, home: Home, tmp_path: Path) -> None:
    sign(home)
    paint(home)
    Journal(home).write(
        "train", now=NOW, level="error", persona="sitter", outcome="failed", error="disk_full"
    )
    said = oblik("report", "--day", "2026-01-02", "--out", tmp_path)
    assert said.exit_code == 0, said.output
    assert "1 pictures, not measured; mode switches 0, degradations 0, failures 1" in said.output
    assert json.loads((tmp_path / "2026-01-02.json").read_text())["troubles"][0]["code"] == "disk_full"
    assert oblik("report", "--day", "2026-01-32").exit_code == 2
    assert oblik("report", "--persona", "nobody").exit_code == 2


def test_a_smoke_test_with_the_bundled_pack(home: Home, tmp_path: Path) -> None:
    quick = tmp_path / "quick.toml"
    quick.write_text('about = "two steps"\n[plan]\nsteps = 2\n[pace]\npause_s = 0.1\n', encoding="utf-8")
    out = tmp_path / "smoke"
    typed = ["--home", home.root, "--device", "cpu", "smoke", "--count", 2, "--quality", quick, "--out", out]
    result = CliRunner().invoke(main, [str(word) for word in typed])
    assert result.exit_code == 0, result.output
    assert "2 of 2 pictures" in result.output
    assert "no thermometer" in result.output
    report = json.loads((out / "generation_report.json").read_text())
    assert [picture["file"] for picture in report["pictures"]] == [
        "001-smoke/01-seed1.png",
        "002-smoke/01-seed2.png",
    ]
    assert report["machine"]["rested_s"] == 0.1
    assert len(report["machine"]["memory_bytes"]) == 2
