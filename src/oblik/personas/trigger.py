"""The trigger token: one rare word that means one person, and the proof that it stays one id.

In: a pack's ``tokenizer.json`` and a trigger such as ``<oblik_subject>``. Out: a copy of the tokenizer that
knows the token, and a `TokenProof` of what was tried. Knows nothing of embeddings or of what is learned.
Not guaranteed: another program's tokenizer. It must be given the written ``tokenizer.json``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from tokenizers import AddedToken, Tokenizer

from oblik.errors import InvalidInput, NotFound, TokenBroken
from oblik.paths import atomic_write, private_dir, sha256_file

CONTEXTS = (
    "{}", "photo of {}", "photo of {} woman with brown hair", "photo of {}, smiling", "a portrait of {}.",
    "{} in a park", "({})", "\"{}\"", "photo\n{}\n", "photo of{}here", "  {}  ",
)  # fmt: skip


class TokenProof(BaseModel):
    """What was shown about a trigger on one tokenizer. ``contexts``: text -> ids with the token in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trigger: str
    token_id: int
    base_size: int
    without: list[str]
    contexts: dict[str, list[int]]
    tokenizer_sha256: str

    def sentence(self) -> str:
        """One line for a person."""
        return (
            f"{self.trigger} is one id ({self.token_id}) in all {len(self.contexts)} contexts; "
            f"without it the tokenizer would break it into {len(self.without)} pieces"
        )


def default_trigger(slug: str) -> str:
    """``subject-b`` -> ``<oblik_subject_b>``."""
    return f"<oblik_{slug.replace('-', '_')}>"


def reserve(tokenizer_file: Path, trigger: str, others: Iterable[str] = ()) -> TokenProof:
    """Prove that ``trigger`` can be one new id of this tokenizer. Nothing is written.

    Raises:
        InvalidInput: it has blanks, is too short, or resembles another persona's trigger.
        TokenBroken: the vocabulary has it already, or it falls apart in some context.
    """
    _check_spelling(trigger)
    _check_others(trigger, others)
    base = _open(tokenizer_file)
    known = [base.token_to_id(piece) for piece in (trigger, f"Ġ{trigger}", f"▁{trigger}")]
    without = base.encode(trigger, add_special_tokens=False)
    if any(found is not None for found in known) or len(without.ids) == 1:
        raise TokenBroken(
            f"{trigger!r} is a word of this tokenizer already, with a meaning of its own",
            hint="choose a rarer one with --trigger",
        )
    return _prove(_with_token(tokenizer_file, trigger), trigger, base, without.tokens, tokenizer_file)


def check(tokenizer_file: Path, trigger: str) -> TokenProof:
    """Prove that a tokenizer which should know ``trigger`` keeps it whole; raise TokenBroken if not."""
    tokenizer = _open(tokenizer_file)
    if tokenizer.token_to_id(trigger) is None:
        pieces = tokenizer.encode(trigger, add_special_tokens=False)
        raise TokenBroken(
            f"{trigger} falls apart into {len(pieces.ids)} ids {pieces.ids} in {tokenizer_file}",
            hint="use the tokenizer.json that lies beside the LoRA",
        )
    return _prove(tokenizer, trigger, tokenizer, [trigger], tokenizer_file)


def token_ids(tokenizer_file: Path, text: str) -> list[int]:
    """The ids of ``text``."""
    return list(_open(tokenizer_file).encode(text, add_special_tokens=False).ids)


def write_tokenizer(src_folder: Path, dst_folder: Path, trigger: str) -> int:
    """Copy a tokenizer folder with ``trigger`` added; return the token's id.

    ``tokenizer_config.json`` is brought in line where it lists added tokens.
    """
    private_dir(dst_folder)
    for file in sorted(src_folder.iterdir()):
        if file.is_file() and file.name not in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(file, dst_folder / file.name)
    tokenizer = _with_token(src_folder / "tokenizer.json", trigger)
    token_id = _id_of(tokenizer, trigger)
    atomic_write(dst_folder / "tokenizer.json", tokenizer.to_str(pretty=False))
    config = src_folder / "tokenizer_config.json"
    if config.is_file():
        atomic_write(dst_folder / config.name, _config_with_token(config, trigger, token_id))
    return token_id


def _open(file: Path) -> Tokenizer:
    if not file.is_file():
        raise NotFound(f"there is no tokenizer at {file}", hint="oblik pack list")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as broken:  # the Rust side raises a bare Exception for any bad file
        raise InvalidInput(f"{file} is not a tokenizer: {broken}", hint="oblik pack list") from broken


def _with_token(file: Path, trigger: str) -> Tokenizer:
    tokenizer = _open(file)
    tokenizer.add_tokens([AddedToken(trigger, lstrip=True, normalized=False, special=False)])
    return tokenizer


def _prove(tokenizer: Tokenizer, trigger: str, base: Tokenizer, without: list[str], file: Path) -> TokenProof:
    token_id = _id_of(tokenizer, trigger)
    contexts = {}
    for pattern in CONTEXTS:
        text = pattern.format(trigger)
        ids = list(tokenizer.encode(text, add_special_tokens=False).ids)
        if ids.count(token_id) != 1:
            raise TokenBroken(
                f"{trigger} is not one id in {text!r}: {ids}", hint="choose another one with --trigger"
            )
        contexts[text] = ids
    return TokenProof(
        trigger=trigger, token_id=token_id, base_size=base.get_vocab_size(), without=without,
        contexts=contexts, tokenizer_sha256=sha256_file(file),
    )  # fmt: skip


def _id_of(tokenizer: Tokenizer, trigger: str) -> int:
    token_id = tokenizer.token_to_id(trigger)
    assert token_id is not None
    return int(token_id)


def _check_spelling(trigger: str) -> None:
    if len(trigger) < 4 or not trigger.isprintable() or any(c.isspace() for c in trigger):
        raise InvalidInput(
            f"the trigger {trigger!r} must be at least 4 visible characters without blanks",
            hint="for example --trigger '<oblik_subject>'",
        )


def _check_others(trigger: str, others: Iterable[str]) -> None:
    mine = trigger.lower()
    for other in others:
        theirs = other.lower()
        if mine in (theirs, theirs.strip("<>")) or mine.startswith(theirs) or theirs.startswith(mine):
            relation = "is the same as, or a beginning of,"
        elif mine.endswith(theirs) or theirs.endswith(mine):
            relation = "is an ending of"
        else:
            continue
        raise InvalidInput(
            f"the trigger {trigger!r} {relation} another persona's {other!r} (or the other way round)",
            hint="choose another one with --trigger",
        )


def _config_with_token(config: Path, trigger: str, token_id: int) -> str:
    data = json.loads(config.read_text(encoding="utf-8"))
    if "added_tokens_decoder" in data:
        data["added_tokens_decoder"][str(token_id)] = {
            "content": trigger, "lstrip": True, "normalized": False, "rstrip": False,
            "single_word": False, "special": False,
        }  # fmt: skip
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
