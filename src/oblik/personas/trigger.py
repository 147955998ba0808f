"""The trigger token: one rare word that means one person, and the proof that it stays one id.

In: a pack's ``tokenizer.json`` and a trigger such as ``<oblik_subject>``. Out: a copy of the tokenizer that
knows the token, and a `TokenProof` of what was tried. Knows nothing of embeddings or of what is learned.
Not guaranteed: another program's tokenizer. It must be given the written ``tokenizer.json``.
"""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from tokenizers import AddedToken, Tokenizer

from oblik.errors import InvalidInput, NotFound, TokenBroken
from oblik.paths import atomic_write, private_dir, sha256_file

CONTEXTS = (
    "{}", "photo of {}", "photo of {} woman with brown hair", "photo of {}, smiling", "a portrait of {}.",
    "{} in a park", "({})", "\"{}\"", "photo\n{}\n", "  {}  ", "{}!?", "photo of {}'s face", "{}<|im_end|>\n",
)  # fmt: skip
SHORTEST = 4
GLUED = "photo of{}here"
"""Only an added token is cut out of a word; an existing lexeme needs its blanks."""


class TokenProof(BaseModel):
    """What was shown about a trigger on one tokenizer. ``contexts``: text -> ids with the token in it.

    ``kind`` is ``added`` for a new token and ``existing`` for a rare lexeme of a vocabulary that can't grow.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trigger: str
    kind: Literal["added", "existing"] = "added"
    token_id: int
    base_size: int
    without: list[str]
    contexts: dict[str, list[int]]
    tokenizer_sha256: str

    def sentence(self) -> str:
        """One line for a person."""
        if self.kind == "existing":
            return (
                f"{self.trigger} is one id ({self.token_id}) in all {len(self.contexts)} contexts; "
                f"it is a rare lexeme of a vocabulary of {self.base_size} that is not extended"
            )
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


def borrow(tokenizer_file: Path, trigger: str | None = None, others: Iterable[str] = ()) -> TokenProof:
    """Prove that an existing lexeme is a single id wherever it stands, for a vocabulary that can't grow.

    Without ``trigger`` the rarest one that holds is taken: the latest merges of a vocabulary have the
    highest ids, and words of Latin letters come first, because a person has to type them.

    Raises:
        InvalidInput: it resembles another persona's trigger.
        TokenBroken: ``trigger`` is not one id everywhere, or no lexeme is.
    """
    base, taken = _open(tokenizer_file), list(others)
    if trigger is not None:
        _check_others(trigger, taken)
        return _prove(base, trigger, base, [trigger], tokenizer_file)
    for candidate in _rare_lexemes(base):
        try:
            _check_others(candidate, taken)
            return _prove(base, candidate, base, [candidate], tokenizer_file)
        except (TokenBroken, InvalidInput):
            continue
    raise TokenBroken("no lexeme of this tokenizer is a single id everywhere", hint="oblik pack list")


def check(tokenizer_file: Path, trigger: str) -> TokenProof:
    """Prove that a tokenizer which should know ``trigger`` keeps it whole; raise TokenBroken if not."""
    tokenizer = _open(tokenizer_file)
    if tokenizer.token_to_id(trigger) is None and _id_or_none(tokenizer, trigger) is None:
        pieces = tokenizer.encode(trigger, add_special_tokens=False)
        raise TokenBroken(
            f"{trigger} falls apart into {len(pieces.ids)} ids {pieces.ids} in {tokenizer_file}",
            hint="use the tokenizer.json that lies beside the LoRA",
        )
    return _prove(tokenizer, trigger, tokenizer, [trigger], tokenizer_file)


def write_proof(proof: TokenProof, file: Path) -> None:
    """Write the proof beside the persona's file."""
    atomic_write(file, proof.model_dump_json(indent=1) + "\n")


def read_proof(file: Path) -> TokenProof | None:
    """The proof that was written, None when there is none."""
    return TokenProof.model_validate_json(file.read_bytes()) if file.is_file() else None


def token_ids(tokenizer_file: Path, text: str) -> list[int]:
    """The ids of ``text``."""
    return list(_open(tokenizer_file).encode(text, add_special_tokens=False).ids)


def write_tokenizer(src_folder: Path, dst_folder: Path, trigger: str) -> int:
    """Copy a tokenizer folder with ``trigger`` added; return the token's id.

    ``tokenizer_config.json`` is brought in line where it lists added tokens. A trigger that the vocabulary
    has already (`borrow`) keeps its id, and nothing is added.
    """
    private_dir(dst_folder)
    for file in sorted(src_folder.iterdir()):
        if file.is_file() and file.name not in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(file, dst_folder / file.name)
    tokenizer = _open(src_folder / "tokenizer.json")
    known = tokenizer.token_to_id(trigger) is not None or _id_or_none(tokenizer, trigger) is not None
    tokenizer = tokenizer if known else _with_token(src_folder / "tokenizer.json", trigger)
    token_id = _id_of(tokenizer, trigger)
    atomic_write(dst_folder / "tokenizer.json", tokenizer.to_str(pretty=False))
    config = src_folder / "tokenizer_config.json"
    if config.is_file():
        text = config.read_text(encoding="utf-8")
        extended = text if known else _config_with_token(config, trigger, token_id)
        atomic_write(dst_folder / config.name, extended)
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
    added = token_id in tokenizer.get_added_tokens_decoder()
    contexts = {}
    for pattern in (*CONTEXTS, GLUED) if added else CONTEXTS:
        text = pattern.replace("{}", trigger)
        ids = list(tokenizer.encode(text, add_special_tokens=False).ids)
        if ids.count(token_id) != pattern.count("{}"):
            raise TokenBroken(
                f"{trigger} is not one id in {text!r}: {ids}", hint="choose another one with --trigger"
            )
        contexts[text] = ids
    return TokenProof(
        trigger=trigger, kind="added" if added else "existing", token_id=token_id,
        base_size=base.get_vocab_size(), without=without, contexts=contexts,
        tokenizer_sha256=sha256_file(file),
    )  # fmt: skip


def _rare_lexemes(tokenizer: Tokenizer) -> Iterable[str]:
    """Words of the vocabulary as a person types them, rarest first: Latin small letters, then any."""
    added = tokenizer.get_added_tokens_decoder()
    ids = sorted((i for i in tokenizer.get_vocab().values() if i not in added), reverse=True)
    typed = ((i, tokenizer.decode([i], skip_special_tokens=False)) for i in ids)
    words = [word for i, word in typed if word.isalpha() and _id_or_none(tokenizer, word) == i]
    latin = [word for word in words if word.isascii() and word.islower() and len(word) >= SHORTEST]
    return [*latin, *(word for word in words if not word.isascii())]


def _id_or_none(tokenizer: Tokenizer, word: str) -> int | None:
    """The id of a word that is one; a byte-level vocabulary spells it in signs of its own."""
    ids = tokenizer.encode(word, add_special_tokens=False).ids
    return int(ids[0]) if len(ids) == 1 and tokenizer.decode(ids, skip_special_tokens=False) == word else None


def _id_of(tokenizer: Tokenizer, trigger: str) -> int:
    token_id = tokenizer.token_to_id(trigger)
    token_id = _id_or_none(tokenizer, trigger) if token_id is None else token_id
    if token_id is None:
        raise TokenBroken(
            f"{trigger!r} is no lexeme of this tokenizer", hint="leave --trigger out to have one chosen"
        )
    return int(token_id)


def _check_spelling(trigger: str) -> None:
    if len(trigger) < SHORTEST or not trigger.isprintable() or any(c.isspace() for c in trigger):
        raise InvalidInput(
            f"the trigger {trigger!r} must be at least {SHORTEST} visible characters without blanks",
            hint="for example --trigger '<oblik_subject>'",
        )


def resembling(trigger: str, other: str) -> str:
    """How two triggers resemble each other, but for case, form and brackets; empty when they do not."""
    mine, theirs = _folded(trigger), _folded(other)
    if mine.strip("<>") == theirs.strip("<>"):
        return "is the same, but for case or brackets, as"
    if mine.startswith(theirs) or theirs.startswith(mine):
        return "has a beginning in common with"
    if mine.endswith(theirs) or theirs.endswith(mine):
        return "has an ending in common with"
    return "is a part of, or contains," if mine in theirs or theirs in mine else ""


def _check_others(trigger: str, others: Iterable[str]) -> None:
    for other in others:
        if relation := resembling(trigger, other):
            raise InvalidInput(
                f"the trigger {trigger!r} {relation} another persona's {other!r}",
                hint="choose another one with --trigger",
            )


def _folded(trigger: str) -> str:
    return unicodedata.normalize("NFKC", trigger).casefold()


def _config_with_token(config: Path, trigger: str, token_id: int) -> str:
    data = json.loads(config.read_text(encoding="utf-8"))
    if "added_tokens_decoder" in data:
        data["added_tokens_decoder"][str(token_id)] = {
            "content": trigger, "lstrip": True, "normalized": False, "rstrip": False,
            "single_word": False, "special": False,
        }  # fmt: skip
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
