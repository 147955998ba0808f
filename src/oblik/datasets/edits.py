"""Captions as their owner edits them: one CSV, or a folder of .txt files.

In: a version, and captions that somebody wrote. Out: ``datasets/captions/``, a working copy with a file for
each photo; and a new version with other captions and the same pictures. A version is never changed. A
working file counts as edited when it differs from what was written there, so a crash never turns old
captions into edits. Knows nothing of photos outside the version.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from oblik.datasets.captions import check_caption
from oblik.datasets.decisions import read_decisions, write_captions
from oblik.datasets.manifest import MANIFEST, Dataset, Photo, Status
from oblik.datasets.report import write_report
from oblik.datasets.versions import building, hashes, publish
from oblik.datasets.words import caption_text
from oblik.errors import InvalidInput, NotFound
from oblik.paths import atomic_write, next_version, private_dir
from oblik.personas.persona import Persona, Scope
from oblik.personas.store import consent_sha256

WORKING, WRITTEN = "captions", ".written.json"
COLUMNS = ("file", "split", "caption", "sha256")


def working_name(photo: Photo) -> str:
    """The photo's file in the working copy: its own name, and enough of its hash to be the only one."""
    stem = re.sub(r"[^\w.-]+", "_", Path(photo.source).stem)[:60]
    return f"{stem}-{photo.source_sha256[:8]}.txt"


def offer_captions(datasets: Path, dataset: Dataset) -> None:
    """Write the working copy of a version's captions; files of photos that are gone are removed."""
    folder = private_dir(datasets / WORKING)
    captions = {working_name(photo): photo.caption for photo in dataset.accepted()}
    for name in set(_written(folder)) - set(captions):
        (folder / name).unlink(missing_ok=True)
    for name, caption in captions.items():
        file = folder / name
        file.touch(mode=0o600)
        file.write_text(caption + "\n", encoding="utf-8")
    atomic_write(
        folder / WRITTEN, json.dumps({name: _hash(text) for name, text in captions.items()}, indent=1)
    )


def picked_up(datasets: Path, dataset: Dataset) -> dict[str, str]:
    """Source hash -> text of every working file that was edited since it was written."""
    folder = datasets / WORKING
    written, found = _written(folder), {}
    for photo in dataset.accepted():
        file = folder / working_name(photo)
        if file.name not in written or not file.is_file():
            continue
        text = " ".join(caption_text(file).split())
        if _hash(text) != written[file.name]:
            found[photo.source_sha256] = text
    return found


def export_captions(dataset: Dataset, file: Path) -> int:
    """Write the captions of all accepted photos as one CSV; how many there are."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    rows = dataset.accepted()
    for photo in rows:
        assert photo.split is not None
        writer.writerow([photo.source, photo.split.value, photo.caption, photo.source_sha256])
    atomic_write(file, "\ufeff" + buffer.getvalue())
    return len(rows)


def import_captions(dataset: Dataset, file: Path) -> dict[str, str]:
    """Source hash -> caption of the rows that differ from the version. The ``sha256`` column may be missing.

    Raises NotFound without a file, InvalidInput for columns or photos that are not known.
    """
    if not file.is_file():
        raise NotFound(f"there is no file {file}", hint="oblik dataset captions PERSONA --export FILE.csv")
    rows = list(csv.DictReader(io.StringIO(caption_text(file), newline="")))
    if rows and not {"file", "caption"} <= set(rows[0]):
        raise InvalidInput(
            f"{file.name} needs the columns file and caption",
            hint="oblik dataset captions PERSONA --export FILE.csv",
        )
    if torn := [row["file"] for row in rows if None in row]:
        raise InvalidInput(
            f"{file.name} has more cells than columns at {torn[0]}",
            hint='put a caption with commas in quotes: "photo of ..., red clothes"',
        )
    by_hash = {photo.source_sha256: photo for photo in dataset.accepted()}
    by_name = {photo.source: photo for photo in dataset.accepted()}
    changed, unknown = {}, []
    for row in rows:
        photo = by_hash.get((row.get("sha256") or "").strip()) or by_name.get((row["file"] or "").strip())
        if photo is None:
            unknown.append(row["file"] or "")
        elif (text := " ".join((row["caption"] or "").split())) != photo.caption:
            changed[photo.source_sha256] = text
    if unknown:
        raise InvalidInput(
            f"{file.name} names photos that {dataset.version} does not have: {', '.join(unknown[:5])}",
            hint="oblik dataset show",
        )
    return changed


def recaption(
    datasets: Path, dataset: Dataset, persona: Persona, changed: Mapping[str, str], now: datetime,
    others: Sequence[str] = (),
) -> Dataset:  # fmt: skip
    """A new version with the captions ``changed`` (source hash -> text) and everything else as it was.

    They become the user's own: later builds keep them. Without a change it is ``dataset`` itself.

    Raises:
        ConsentError: the consent does not cover portraits today.
        InvalidInput: captions that cannot be used, each with its photo; then nothing was written.
    """
    persona.consent.require(Scope.portraits, now.date())
    changed = _checked(dataset, persona, changed, others)
    if not changed:
        return dataset
    photos = [
        photo.model_copy(update={"caption": changed[photo.source_sha256], "edited": True})
        if photo.status is Status.accepted and photo.source_sha256 in changed
        else photo
        for photo in dataset.photos
    ]
    captions = {**read_decisions(datasets).captions, **changed}
    by_origin = {photo.source_sha256: photo.caption for photo in photos if photo.path}
    extras = [e.model_copy(update={"caption": by_origin.get(e.origin, e.caption)}) for e in dataset.extras]
    made = dataset.model_copy(
        update={
            "version": next_version(datasets), "created_at": now, "photos": photos, "extras": extras,
            "consent_sha256": consent_sha256(persona.consent),
            "tools": with_captions(dataset.tools, captions), "files": {},
        }
    )  # fmt: skip
    with building(datasets) as folder:
        _copy(datasets / dataset.version, folder)
        lines = [(photo.path, photo.caption) for photo in made.accepted()]
        lines += [(extra.path, extra.caption) for extra in made.extras]
        for path, line in lines:
            if path is not None:
                _replace(folder / Path(path).with_suffix(".txt"), line + "\n")
        (folder / "report.html").unlink(missing_ok=True)
        write_report(folder, made)
        made = made.model_copy(update={"files": hashes(folder)})
        _replace(folder / MANIFEST, made.model_dump_json(indent=1) + "\n")
        publish(folder, datasets / made.version)
    write_captions(datasets, changed)
    offer_captions(datasets, made)
    return made


def with_captions(tools: Mapping[str, str], captions: Mapping[str, str]) -> dict[str, str]:
    """``tools`` with the fingerprint of all inputs: of those without captions, and of the captions."""
    parts = [tools.get("inputs_without_captions", ""), sorted(captions.items())]
    return {**tools, "inputs": hashlib.sha256(json.dumps(parts).encode()).hexdigest()}


def _checked(
    dataset: Dataset, persona: Persona, changed: Mapping[str, str], others: Sequence[str]
) -> dict[str, str]:
    good, wrong, hint = {}, [], ""
    for photo in dataset.accepted():
        text = changed.get(photo.source_sha256, photo.caption)
        if text == photo.caption:
            continue
        try:
            good[photo.source_sha256] = check_caption(text, persona.trigger, others)
        except InvalidInput as problem:
            wrong.append(f"{photo.source}: {problem.message}")
            hint = problem.hint
    if wrong:
        more = f" (and {len(wrong) - 5} more)" if len(wrong) > 5 else ""
        raise InvalidInput("; ".join(wrong[:5]) + more, hint=hint)
    return good


def _copy(version: Path, folder: Path) -> None:
    for entry in sorted(version.iterdir()):
        if entry.is_dir():
            shutil.copytree(entry, folder / entry.name)
        else:
            shutil.copy2(entry, folder / entry.name)


def _replace(file: Path, text: str) -> None:
    file.unlink(missing_ok=True)
    atomic_write(file, text)


def _written(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / WRITTEN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
