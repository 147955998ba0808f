"""The trigger token on a small byte-level tokenizer of the Qwen2 kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from oblik.errors import InvalidInput, NotFound, TokenBroken
from oblik.personas.trigger import (
    borrow,
    check,
    default_trigger,
    read_proof,
    reserve,
    token_ids,
    write_proof,
    write_tokenizer,
)

SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer folder as packs have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["photo of a woman in a park, smiling. a portrait"] * 9, trainer)
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {}}), encoding="utf-8")
    (folder / "chat_template.jinja").write_text("{{ x }}", encoding="utf-8")
    return folder


def test_default_trigger() -> None:
    assert default_trigger("subject-b2") == "<oblik_subject_b2>"


def test_one_new_id_in_every_context(folder: Path) -> None:
    before = (folder / "tokenizer.json").read_bytes()
    proof = reserve(folder / "tokenizer.json", "<oblik_subject>")
    assert proof.token_id == proof.base_size
    assert len(proof.without) > 1
    assert all(ids.count(proof.token_id) == 1 for ids in proof.contexts.values())
    assert len(proof.contexts) >= 8
    assert (folder / "tokenizer.json").read_bytes() == before
    assert "one id" in proof.sentence()


def test_the_blank_before_the_token_is_part_of_it(folder: Path, tmp_path: Path) -> None:
    token_id = write_tokenizer(folder, tmp_path / "out", "<oblik_subject>")
    file = tmp_path / "out" / "tokenizer.json"
    assert token_ids(file, "photo of <oblik_subject>") == [*token_ids(file, "photo of"), token_id]
    assert token_ids(file, "<oblik_subject>, smiling") == [token_id, *token_ids(file, ", smiling")]


def test_the_rest_of_the_text_keeps_its_ids(folder: Path, tmp_path: Path) -> None:
    write_tokenizer(folder, tmp_path / "out", "<oblik_subject>")
    text = "photo of a woman in a park, smiling"
    assert token_ids(tmp_path / "out" / "tokenizer.json", text) == token_ids(folder / "tokenizer.json", text)


def test_written_folder_is_complete_and_names_the_token(folder: Path, tmp_path: Path) -> None:
    token_id = write_tokenizer(folder, tmp_path / "out", "<oblik_subject>")
    assert (tmp_path / "out" / "chat_template.jinja").read_text(encoding="utf-8") == "{{ x }}"
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["added_tokens_decoder"][str(token_id)]["content"] == "<oblik_subject>"
    assert check(tmp_path / "out" / "tokenizer.json", "<oblik_subject>").token_id == token_id


def test_a_tokenizer_without_the_token_breaks_it(folder: Path) -> None:
    with pytest.raises(TokenBroken, match="falls apart into") as broken:
        check(folder / "tokenizer.json", "<oblik_subject>")
    assert str(token_ids(folder / "tokenizer.json", "<oblik_subject>")) in broken.value.message
    assert "tokenizer.json" in broken.value.hint


@pytest.mark.parametrize("word", ["photo", "woman"])
def test_a_word_of_the_vocabulary_is_refused(folder: Path, word: str) -> None:
    with pytest.raises(TokenBroken, match="already"):
        reserve(folder / "tokenizer.json", word)


@pytest.mark.parametrize(
    ("trigger", "other"),
    [
        ("<oblik_subject>", "<OBLIK_SUBJECT>"),
        ("qwzsubject", "qwzsubjec"),
        ("qwz", "qwzsubject"),
        ("xqwz1", "qwz1"),
        ("<qwzy>", "QWZY"),
        ("qwzy", "<qwzy>"),
        ("xqwz1y", "qwz1"),
        ("ﬁqwzy", "FIQWZY"),
    ],
)
def test_what_resembles_another_persona_is_refused(folder: Path, trigger: str, other: str) -> None:
    with pytest.raises(InvalidInput):
        reserve(folder / "tokenizer.json", trigger, [other])


def test_others_that_differ_are_no_obstacle(folder: Path) -> None:
    assert reserve(
        folder / "tokenizer.json", "<oblik_subject>", ["<oblik_subjec>", "<oblik_subject_b>"]
    ).token_id


@pytest.mark.parametrize("trigger", ["", "a b c d", "<x", "<ob\u0007lik>", "tab\tbed"])
def test_spelling(folder: Path, trigger: str) -> None:
    with pytest.raises(InvalidInput, match="visible characters"):
        reserve(folder / "tokenizer.json", trigger)


def test_missing_and_damaged_tokenizers(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        reserve(tmp_path / "tokenizer.json", "<oblik_subject>")
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InvalidInput, match="not a tokenizer"):
        reserve(tmp_path / "tokenizer.json", "<oblik_subject>")


@pytest.fixture
def fixed(tmp_path: Path) -> Path:
    """A vocabulary of whole words that nobody may extend: frequent ones first."""
    words = ["photo", "of", "a", "in", "park", "portrait", "woman", "here", "quor", "veltz", "ab", "Zz9"]
    tokenizer = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate([*words, "[UNK]"])}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "fixed").mkdir()
    tokenizer.save(str(tmp_path / "fixed" / "tokenizer.json"))
    return tmp_path / "fixed"


def test_a_vocabulary_that_cannot_grow_lends_its_rarest_word(fixed: Path, tmp_path: Path) -> None:
    proof = borrow(fixed / "tokenizer.json")
    assert (proof.trigger, proof.kind, proof.token_id) == ("veltz", "existing", 9)
    assert all(ids.count(9) == 1 for ids in proof.contexts.values())
    assert len(proof.contexts) >= 10
    assert borrow(fixed / "tokenizer.json", others=["<VELTZ>"]).trigger == "quor"
    write_proof(proof, tmp_path / "token.json")
    assert read_proof(tmp_path / "token.json") == proof
    assert "rare lexeme" in proof.sentence()


def test_a_borrowed_word_is_not_added_again(fixed: Path, tmp_path: Path) -> None:
    assert write_tokenizer(fixed, tmp_path / "out", "veltz") == 9
    written = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert written.get_added_tokens_decoder() == {}
    assert check(tmp_path / "out" / "tokenizer.json", "veltz").kind == "existing"


def test_a_word_that_is_not_one_id_everywhere_is_not_lent(fixed: Path, folder: Path) -> None:
    with pytest.raises(TokenBroken, match="no lexeme"):
        borrow(fixed / "tokenizer.json", "veltzquor")
    with pytest.raises(TokenBroken, match="not one id"):
        borrow(folder / "tokenizer.json", "photo")


def test_the_smallest_pack_has_a_word_to_lend() -> None:
    packs = Path(__file__).parents[2] / "src" / "oblik" / "packs"
    for file in packs.glob("*/tokenizer/tokenizer.json"):
        proof = borrow(file)
        assert all(ids.count(proof.token_id) == 1 for ids in proof.contexts.values())
