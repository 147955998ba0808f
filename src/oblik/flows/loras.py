"""The versions of a person's LoRA: what each is, how it learned, how alike its pictures came out.

In: a persona's folders. Out: an `Entry` for each version; pages and comparisons as rows of words. Knows
nothing of tensors and terminals.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oblik.errors import NotFound
from oblik.flows.acceptance import FOLDER, SHOWN
from oblik.generation.plan import Plan
from oblik.generation.record import FILE_NAME, read_record
from oblik.likeness.acceptance import FAST, RELIABLE, Acceptance, read_acceptance
from oblik.likeness.findings import LikenessReport
from oblik.likeness.report import read_report
from oblik.paths import PersonaHome, versions
from oblik.personas.installations import installations
from oblik.training.artifact import (
    CURVES,
    WEIGHTS,
    LoraArtifact,
    TrainingLog,
    finished,
    latest_artifact,
    read_artifact,
)

REPORT = "likeness.json"
SMOOTHED = 10
"""Steps that a printed training loss is the mean of: one step says little."""
APART = (
    "version", "created_at", "seconds", "weights_sha256", "token_sha256", "text_encoder_sha256",
    "token_proof", "persona", "parent",
)  # fmt: skip
"""What differs between any two versions, and so says nothing in a comparison of settings."""


@dataclass(frozen=True)
class Entry:
    """One finished version. ``used`` is the one that is taken when none is named."""

    artifact: LoraArtifact
    folder: Path
    used: bool
    likeness: LikenessReport | None
    acceptance: Acceptance | None
    reliable: Acceptance | None
    copies: tuple[str, ...]

    @property
    def likeness_words(self) -> str:
        """The median likeness of its newest measured pictures, with the threshold; "not measured"."""
        if self.likeness is None:
            return "not measured"
        threshold = self.likeness.calibration.threshold
        return f"{self.likeness.median}, threshold {threshold:.2f}: {self.likeness.verdict.value}"

    @property
    def acceptance_words(self) -> str:
        """What its test found, with the claim; "not tested"."""
        return self.acceptance.line if self.acceptance else "not tested"

    @property
    def log(self) -> TrainingLog:
        """The curve; empty where none was kept."""
        file = self.folder / CURVES
        return (
            TrainingLog.model_validate_json(file.read_bytes()) if file.is_file() else TrainingLog(losses=[])
        )


def entries(home: PersonaHome) -> list[Entry]:
    """Every finished version, oldest first."""
    return [_entry(home, version) for version in finished(home.loras)]


def find(home: PersonaHome, version: str | None = None) -> Entry:
    """One version; without a name the one in use. Raises NotFound."""
    known = finished(home.loras)
    version = version or latest_artifact(home.loras)
    if version not in known:
        raise NotFound(f"there is no finished LoRA {version}", hint="oblik lora list")
    return _entry(home, version)


def page(entry: Entry) -> list[tuple[str, str]]:
    """The manifest as a person reads it."""
    made, folder = entry.artifact, entry.folder
    rows = [
        ("LoRA", f"{made.version} of {made.persona}" + (", in use" if entry.used else "")),
        ("trained", f"{made.created_at:%Y-%m-%d %H:%M}, by {made.trainer}, in {made.seconds:.0f} s"),
        ("pack", f"{made.pack} {made.pack_version}"),
        ("dataset", f"{made.dataset}, sha256 {made.dataset_sha256[:16]}"),
        ("consent", f"sha256 {made.consent_sha256[:16]}"),
        ("trigger", f"{made.trigger} {made.class_noun}, {_token(made)}"),
        ("rank", f"{made.rank}, alpha {made.alpha:g}"),
        ("targets", ", ".join(made.targets)),
        ("steps", str(made.steps)),
        ("checkpoint", _checkpoint(made)),
        ("parent", made.parent or "none"),
        ("device", made.device or "not known"),
        ("VRAM", _vram(made)),
        *losses(entry.log),
        ("likeness", entry.likeness_words),
        ("test", entry.acceptance_words),
        *([("test, reliable", entry.reliable.line)] if entry.reliable else []),
        ("mode", entry.acceptance.profile if entry.acceptance else "fast"),
        ("weights", f"{(folder / WEIGHTS).stat().st_size:,} bytes, sha256 {made.weights_sha256[:16]}"),
        (
            "text encoder",
            f"sha256 {made.text_encoder_sha256[:16]}" if made.text_encoder_sha256 else "unchanged",
        ),
        ("libraries", ", ".join(f"{name} {version}" for name, version in sorted(made.libraries.items()))),
        ("folder", str(folder)),
    ]
    return rows + [("copy", path) for path in entry.copies]


def compare(one: Entry, other: Entry) -> list[tuple[str, str, str]]:
    """What differs between two versions, then how they learned and how alike they are, side by side."""
    left, right = (dict(_flat(entry.artifact.model_dump(mode="json"))) for entry in (one, other))
    rows = [
        (name, left.get(name, ""), right.get(name, ""))
        for name in {**left, **right}
        if left.get(name) != right.get(name) and name.partition(".")[0] not in APART
    ]
    learned, also = dict(losses(one.log)), dict(losses(other.log))
    rows += [(name, learned.get(name, ""), also.get(name, "")) for name in {**learned, **also}]
    rows.append(("seconds", f"{one.artifact.seconds:.0f}", f"{other.artifact.seconds:.0f}"))
    rows.append(("likeness", one.likeness_words, other.likeness_words))
    rows.append(("test", one.acceptance_words, other.acceptance_words))
    return rows


def losses(log: TrainingLog) -> list[tuple[str, str]]:
    """The curve in two lines: the training loss at its ends, the lowest held-out loss."""
    if not log.losses:
        return []
    ends = log.losses[:SMOOTHED], log.losses[-SMOOTHED:]
    first, last = (sum(point.train for point in part) / len(part) for part in ends)
    rows = [("loss", f"{first:.4f} to {last:.4f}")]
    held_out = [(point.validation, point.step) for point in log.losses if point.validation is not None]
    if held_out:
        rows.append(("held-out loss", f"{min(held_out)[0]:.4f} at step {min(held_out)[1]}"))
    return rows


def measured(home: PersonaHome, made: LoraArtifact) -> LikenessReport | None:
    """The newest likeness report of pictures that this LoRA made, with its trigger in the prompt.

    Where the gallery has none, that of its test.
    """

    def by_it(plan: Plan) -> bool:
        return plan.lora == made.version and plan.lora_scale > 0 and made.trigger in plan.prompt

    numbered = list(reversed(versions(home.gallery)))
    named = sorted(folder.name for folder in home.gallery.glob("*/") if folder.name not in numbered)
    for batch in [*numbered, *named]:
        for file in sorted((home.gallery / batch).rglob(REPORT)):
            plans = [read_record(record).plan for record in file.parent.rglob(FILE_NAME)]
            if plans and all(by_it(plan) for plan in plans):
                return read_report(file.parent)
    test = home.loras / made.version / FOLDER / SHOWN
    return read_report(test) if (test / REPORT).is_file() else None


def _entry(home: PersonaHome, version: str) -> Entry:
    made = read_artifact(home.loras / version)
    copies = tuple(known.path for known in installations(home) if known.version == version)
    used = version == latest_artifact(home.loras)
    return Entry(
        made,
        home.loras / version,
        used,
        measured(home, made),
        _tested(home.loras / version, FAST),
        _tested(home.loras / version, RELIABLE),
        copies,
    )


def _tested(folder: Path, mode: str) -> Acceptance | None:
    try:
        return read_acceptance(folder, mode)
    except NotFound:
        return None


def _checkpoint(made: LoraArtifact) -> str:
    """After which step the weights are these, and what was found about the steps that were judged."""
    chosen = (
        f"step {made.chosen_step}, the best of those judged" if made.chosen_step is not None else "the last"
    )
    return f"{chosen}; none passed the guards" if made.passed is False else chosen


def _vram(made: LoraArtifact) -> str:
    return (
        "not measured" if made.peak_vram_bytes is None else f"at most {made.peak_vram_bytes / 2**30:.1f} GiB"
    )


def _token(made: LoraArtifact) -> str:
    return f"id {made.token_id}" if made.token_id >= 0 else "no token of its own"


def _flat(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as ``config.seed`` -> "0"."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value if isinstance(value, str) else json.dumps(value)
