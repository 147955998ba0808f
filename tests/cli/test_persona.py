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
from oblik.personas.trigger import write_tokenizer

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
    assert oblik("persona", "create", "subject-b", *SYNTHETIC).exit_code == 0
    assert "* subject" in oblik("persona", "list").output
    assert oblik("persona", "use", "subject-b").output == "active persona: subject-b\n"
    assert "* subject-b" in oblik("persona", "list").output
    shown = oblik("persona", "show", "subject").output
    assert "hair color brown" in shown
    assert "synthetic" in shown
    assert "token        <oblik_subject_b> person" in oblik("persona", "show").output
    for_once = oblik("--persona", "subject", "persona", "show").output
    assert "token        <oblik_subject> woman" in for_once
    assert "<oblik_subject> is one id" in oblik("--persona", "subject", "token", "check").output


def test_a_signed_consent_with_its_paper(
    oblik: Oblik, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OBLIK_PASSPHRASE", "four words and a number 7")
    paper = tmp_path / "paper.pdf"
    paper.write_bytes(b"%PDF-1.4 signed")
    signed = ("--consent-by", "Subject P.", "--consent-date", "2026-01-31", "--scopes", "portraits,chat")
    made = oblik("persona", "create", "subject", *signed, "--document", str(paper), "--expires", "2099-01-31")
    assert made.exit_code == 0, made.output
    assert "signed by Subject P. on 2026-01-31, until 2099-01-31" in made.output
    assert len(list(home.persona("subject").consent.iterdir())) == 1
    assert "consent=signed" in oblik("audit", "show").output.splitlines()[-1]


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


def signed(tmp_path: Path, name: str = "paper.pdf", on: str = "2026-01-31") -> tuple[str, ...]:
    paper = tmp_path / name
    paper.write_bytes(b"%PDF-1.4 signed as " + name.encode())
    return ("--consent-by", "Subject P.", "--consent-date", on, "--document", str(paper))


def test_edit_words_freely_and_consent_by_paper(
    oblik: Oblik, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OBLIK_PASSPHRASE", "four words and a number 7")
    made = oblik("persona", "create", "subject", *signed(tmp_path), "--gender", "woman")
    assert "vault    its key is behind a passphrase" in made.output
    monkeypatch.delenv("OBLIK_PASSPHRASE")
    assert (
        "girl; gender woman, age young" in oblik("persona", "edit", "--age", "young", "--noun", "girl").output
    )
    alone = oblik("persona", "edit", "subject", "--scopes", "portraits,chat")
    assert (alone.exit_code, "who signed it and on which day" in alone.output) == (2, True)
    refused = oblik(
        "persona", "edit", "subject", *signed(tmp_path, on="2026-02-01"), "--scopes", "portraits,chat"
    )
    assert refused.exit_code == 2
    assert "sign" in refused.output
    wider = oblik("persona", "edit", *signed(tmp_path, "new.pdf", "2026-02-01"), "--scopes", "portraits,chat")
    assert wider.exit_code == 0, wider.output
    assert "scopes   chat, portraits" in wider.output
    assert len(list(home.persona("subject").consent.iterdir())) == 2
    assert b"signed as" not in b"".join(p.read_bytes() for p in home.root.rglob("*") if p.is_file())


def test_a_real_person_needs_a_place_for_the_key(oblik: Oblik, home: Home, tmp_path: Path) -> None:
    refused = oblik("persona", "create", "subject", *signed(tmp_path))
    assert refused.exit_code == 3
    assert "hint: set OBLIK_PASSPHRASE" in refused.output
    assert not home.persona("subject").toml.exists()


def test_a_minor_without_a_guardian_is_refused(oblik: Oblik, tmp_path: Path) -> None:
    refused = oblik("persona", "create", "subject", *signed(tmp_path), "--minor")
    assert refused.exit_code == 2
    assert "minor" in refused.output


def test_revoke_blocks_every_operation(oblik: Oblik) -> None:
    oblik("persona", "create", "subject", *SYNTHETIC)
    assert oblik("persona", "revoke", "subject").exit_code == 0
    for command in (
        ("dataset", "build", "photos"), ("train",), ("generate", "in a park"), ("likeness",),
        ("dataset", "keep", "subject", "a.jpg"), ("dataset", "undo", "subject"),
        ("dataset", "captions", "subject"),
    ):  # fmt: skip
        refused = oblik(*command)
        assert refused.exit_code == 2, command
        assert "consent was revoked" in refused.output, command


def test_delete_wants_the_slug(oblik: Oblik, home: Home, tmp_path: Path) -> None:
    oblik("persona", "create", "subject", *SYNTHETIC)
    refused = oblik("persona", "delete", "subject", "--yes", "subjekt")
    assert refused.exit_code == 2
    assert "nothing was touched" in refused.output
    assert home.persona("subject").toml.exists()
    receipt = tmp_path / "receipt.json"
    done = oblik("persona", "delete", "subject", "--yes", "subject", "--receipt", str(receipt))
    assert done.exit_code == 0, done.output
    assert "vault key" in done.output
    written = json.loads(receipt.read_text(encoding="utf-8"))
    assert json.loads(done.output[done.output.index("{") :]) == written
    assert written["destroyed"]["records"]["files"] >= 2
    assert not home.persona("subject").root.exists()
    log = oblik("audit", "show", "--persona", "subject").output
    assert "persona delete" in log
    assert "outcome=done" in log.splitlines()[-1]


def test_export_and_import(oblik: Oblik, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oblik("persona", "create", "subject", *SYNTHETIC)
    out = tmp_path / "subject.zip"
    assert oblik("persona", "export", "subject", str(out)).exit_code == 3
    monkeypatch.setenv("OBLIK_PASSPHRASE", "four words and a number 7")
    assert "encrypted" in oblik("persona", "export", "subject", str(out)).output
    shown = oblik("persona", "show", "subject").output
    assert oblik("persona", "import", str(out)).exit_code == 2
    oblik("persona", "delete", "subject", "--yes", "subject")
    brought = oblik("persona", "import", str(out))
    assert brought.exit_code == 0, brought.output
    again = oblik("persona", "show", "subject").output
    lines = [[line for line in text.splitlines() if not line.startswith("vault")] for text in (shown, again)]
    assert lines[0] == lines[1]
    oblik("persona", "revoke", "subject")
    oblik("persona", "delete", "subject", "--yes", "subject")
    assert oblik("persona", "import", str(out)).exit_code == 0
    assert "consent was revoked" in oblik("generate", "in a park").output


def test_a_word_that_exists_can_be_the_token(oblik: Oblik, home: Home) -> None:
    vocabulary = {"photo": 0, "of": 1, "veltz": 2, "[UNK]": 3}
    whole_words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    whole_words.pre_tokenizer = pre_tokenizers.Whitespace()
    whole_words.save(str(home.packs / "words" / "tokenizer" / "tokenizer.json"))
    made = oblik("persona", "create", "subject", *SYNTHETIC, "--existing-word")
    assert made.exit_code == 0, made.output
    assert "rare lexeme" in made.output
    assert "veltz person" in oblik("persona", "show").output
    assert json.loads(home.persona("subject").token.read_text(encoding="utf-8"))["kind"] == "existing"
    assert oblik("token", "check").exit_code == 0


def test_a_broken_token_names_the_tokenizer_to_use(oblik: Oblik, home: Home) -> None:
    oblik("persona", "create", "subject", *SYNTHETIC)
    plain = home.packs / "words" / "tokenizer"
    beside = home.persona("subject").loras / "v001" / "tokenizer"
    untrained = oblik("token", "check", "--tokenizer", str(plain))
    assert f"hint: oblik train writes the one to use: {beside / 'tokenizer.json'}" in untrained.output
    write_tokenizer(plain, beside, "<oblik_subject>")
    broken = oblik("token", "check", "--tokenizer", str(plain))
    assert broken.exit_code == 2
    assert f"hint: use {beside / 'tokenizer.json'}" in broken.output
    assert oblik("token", "check", "--tokenizer", str(beside)).exit_code == 0
