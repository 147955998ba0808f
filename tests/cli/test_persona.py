"""`oblik persona`, `oblik token` and `oblik dataset`, as typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from oblik.cli import main
from oblik.paths import Home

Oblik = Callable[..., Result]
SYNTHETIC = ("--synthetic-consent",)


@pytest.fixture
def oblik(home: Home) -> Oblik:
    """Runs the command line on a home that holds a pack with nothing but a tokenizer."""
    folder = home.packs / "words"
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["photo of a woman, smiling"] * 4, trainer)
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    manifest: dict[str, object] = {"name": "words", "version": "1", "family": "qwen_image"}
    manifest |= {"native_size_px": 128, "side_multiple_px": 16}
    (folder / "pack.json").write_text(json.dumps(manifest), encoding="utf-8")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["--home", str(home.root), "--pack", "words", *arguments])

    return run


def test_create_list_show_use(oblik: Oblik, home: Home) -> None:
    made = oblik("persona", "create", "subject", *SYNTHETIC, "--gender", "woman", "--hair-color", "brown")
    assert made.exit_code == 0, made.output
    assert "<oblik_subject> is one id" in made.output
    assert oblik("persona", "create", "ben", *SYNTHETIC).exit_code == 0
    assert "* subject" in oblik("persona", "list").output
    assert oblik("persona", "use", "ben").output == "active persona: ben\n"
    assert "* ben" in oblik("persona", "list").output
    shown = oblik("persona", "show", "subject").output
    assert "hair color brown" in shown
    assert "synthetic" in shown
    assert "token        <oblik_ben> person" in oblik("persona", "show").output


def test_a_signed_consent_with_its_paper(oblik: Oblik, home: Home, tmp_path: Path) -> None:
    paper = tmp_path / "paper.pdf"
    paper.write_bytes(b"%PDF-1.4 signed")
    signed = ("--consent-by", "Subject P.", "--consent-date", "2026-01-31", "--scopes", "portraits,chat")
    made = oblik("persona", "create", "subject", *signed, "--document", str(paper), "--expires", "2099-01-31")
    assert made.exit_code == 0, made.output
    assert "signed by Subject P. on 2026-01-31, until 2099-01-31" in made.output
    assert len(list(home.persona("subject").consent.iterdir())) == 1


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ((), "without the person's consent"),
        (("--consent-by", "Subject"), "who signed it and on which day"),
        (("--consent-by", "Subject", "--consent-date", "2026-01-31"), "needs the signed document"),
    ],
)
def test_no_consent_no_persona(oblik: Oblik, home: Home, typed: tuple[str, ...], message: str) -> None:
    refused = oblik("persona", "create", "subject", *typed)
    assert refused.exit_code == 2
    assert message in refused.output
    assert "hint: oblik persona create" in refused.output
    assert not home.persona("subject").root.exists()


def test_the_token_is_checked_on_the_tokenizer_in_use(oblik: Oblik, home: Home) -> None:
    oblik("persona", "create", "subject", *SYNTHETIC)
    checked = oblik("token", "check")
    assert checked.exit_code == 0, checked.output
    assert "photo of <oblik_subject>" in checked.output
    broken = oblik("token", "check", "subject", "--tokenizer", str(home.packs / "words" / "tokenizer"))
    assert broken.exit_code == 2
    assert "falls apart" in broken.output


def test_nobody_is_active_in_an_empty_home(oblik: Oblik) -> None:
    for command in (("persona", "show"), ("token", "check"), ("dataset", "build", "photos")):
        refused = oblik(*command)
        assert refused.exit_code == 2
        assert "no persona is active" in refused.output
    assert "nobody yet" in oblik("persona", "list").output


def test_no_dataset_yet(oblik: Oblik) -> None:
    oblik("persona", "create", "subject", *SYNTHETIC)
    assert oblik("dataset", "list").output == ""
    assert oblik("dataset", "build", "a", "b", "c").exit_code == 2
