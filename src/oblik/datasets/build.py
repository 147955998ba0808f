"""A folder of photos to one immutable version of a dataset.

In: a persona, a folder, a face stack, a pack's manifest, what the user decided. Out: ``datasets/v001/``,
read-only, with ``dataset.json``, ``images/`` and ``masks/`` by bucket, ``thumbs/``, ``faces.npz`` and
``report.html``; originals of accepted photos, encrypted, in the vault. The same inputs again make no new
version. Knows nothing of tensors, of training, or of the clock.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version as version_of
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oblik import __version__
from oblik.datasets.augment import refuse_flips
from oblik.datasets.buckets import Bucket, buckets_of_training, fit
from oblik.datasets.curate import Candidate, Verdict, decide, examine_all
from oblik.datasets.decisions import DROP, KEEP, Decisions, Word, read_decisions, write_captions
from oblik.datasets.edits import offer_captions, picked_up, with_captions
from oblik.datasets.extras import Wishes, write_extras
from oblik.datasets.manifest import MANIFEST, Augmentation, Dataset, Split, Status, read_dataset
from oblik.datasets.report import write_report
from oblik.datasets.splits import MIN_VALIDATION
from oblik.datasets.versions import building, hashes, publish
from oblik.datasets.words import read_words, words_for
from oblik.datasets.writing import Desk, write_photos
from oblik.errors import InvalidInput
from oblik.faces.stack import TOLD_COSINES, FaceStack
from oblik.packs.manifest import Pack
from oblik.paths import Home, atomic_write, latest_version, next_version
from oblik.personas.permission import under_consent
from oblik.personas.persona import Persona
from oblik.personas.store import consent_sha256
from oblik.personas.vault import ORIGINALS, Vault
from oblik.photos.asymmetry import Asymmetry, measure_asymmetry
from oblik.photos.coverage import FEWEST_PHOTOS, judge
from oblik.photos.intake import Found, identify, list_files, read_original
from oblik.progress import Progress

FORMAT = 4
EMBEDDINGS = "faces.npz"
TOOLS = ("pillow", "numpy", "opencv-python-headless", "imagehash")


def build_dataset(
    persona: Persona,
    photos_dir: Path,
    *,
    home: Home,
    stack: FaceStack,
    pack: Pack,
    now: datetime,
    progress: Progress,
    impostors_MD: NDArray[np.float32] | None = None,
    wishes: Wishes | None = None,
    rendered_faces: bool | None = None,
) -> Dataset:
    """Build the next version, or return the newest one when nothing changed since.

    ``impostors_MD``, unit embeddings of strangers from the same stack, place the cosine below which a
    face is somebody else's; without them what the makers of the stack say does, else the widest gap in the
    folder. ``rendered_faces``: the stack knows only rendered people; as the pack when nobody says.

    Raises:
        ConsentError: the consent does not cover portraits today.
        NotFound: no such folder.
        InvalidInput: fewer than 8 usable photos, fewer than 40 that are much alike, too few moments, words
            that no caption may have, or mirrored copies of a face whose sides differ.
        Conflict: another build was faster.
        BackendError: the disk is full.
    """
    progress = under_consent(persona, "dataset build", home=home, now=now, progress=progress)
    wishes = (wishes or Wishes()).of(pack)
    datasets = home.persona(persona.slug).datasets
    latest = latest_version(datasets)
    before = read_dataset(datasets / latest) if latest else None
    decisions = read_decisions(datasets)
    edited = picked_up(datasets, before) if before else {}
    decisions = replace(decisions, captions={**decisions.captions, **edited})
    files, found = _identified(photos_dir, progress)
    words = _words(photos_dir, found)
    inputs = _fingerprint(persona, pack, stack, found, words, decisions, wishes)
    tools = with_captions({**_tools(), "inputs_without_captions": inputs}, decisions.captions)
    if before is not None and before.tools.get("inputs") == tools["inputs"]:
        return before
    buckets = buckets_of_training(pack.native_size_px, pack.side_multiple_px, pack.training)
    verdicts = _verdicts(files, found, stack, buckets, impostors_MD, decisions, progress)
    _require_enough(verdicts, photos_dir)
    asymmetry = _asymmetry(verdicts)
    augmentation = wishes.augmentation or Augmentation()
    refuse_flips(augmentation, asymmetry)
    with building(datasets) as folder:
        photos = write_photos(folder, persona, verdicts, Desk(words, decisions, wishes, progress))
        require_held_out([photo.split for photo in photos])
        extras = write_extras(folder, photos, wishes, persona.class_noun, buckets, stack, progress)
        dataset = Dataset(
            persona=persona.slug, version=next_version(datasets), trigger=persona.trigger,
            class_noun=persona.class_noun, created_at=now, consent_sha256=consent_sha256(persona.consent),
            face_stack=stack.name, short_side_px=pack.native_size_px, embeddings=EMBEDDINGS,
            photos=photos, tools=tools, extras=extras, augmentation=augmentation, asymmetry=asymmetry,
            caption_source=wishes.source.name,
            synthetic=pack.synthetic if rendered_faces is None else rendered_faces,
        )  # fmt: skip
        _write_embeddings(folder / EMBEDDINGS, verdicts)
        write_report(folder, dataset)
        dataset = dataset.model_copy(update={"files": hashes(folder)})
        atomic_write(folder / MANIFEST, dataset.model_dump_json(indent=1) + "\n")
        _keep_originals(Vault.open(home.persona(persona.slug), persona), verdicts, progress)
        publish(folder, datasets / dataset.version)
    if edited:
        write_captions(datasets, edited)
    offer_captions(datasets, dataset)
    return dataset


def _identified(photos_dir: Path, progress: Progress) -> tuple[list[Path], list[Found]]:
    files = list_files(photos_dir)
    found = []
    with progress.stage("reading names", len(files)) as advance:
        for file in files:
            found.append(identify(photos_dir, file))
            advance()
    return files, found


def _words(photos_dir: Path, found: Sequence[Found]) -> dict[str, str]:
    table = read_words(photos_dir)
    return {f.source: words for f in found if (words := words_for(photos_dir, f.source, table))}


def _fingerprint(
    persona: Persona, pack: Pack, stack: FaceStack, found: Sequence[Found], words: Mapping[str, str],
    decisions: Decisions, wishes: Wishes,
) -> str:  # fmt: skip
    """Of everything that makes a version but the captions that the user wrote."""
    inputs = {
        "format": FORMAT, "tools": _tools(), "stack": stack.name,
        "persona": [persona.slug, persona.trigger, persona.class_noun, sorted(persona.descriptors.items())],
        "consent": consent_sha256(persona.consent),
        "pack": [pack.name, pack.version, pack.native_size_px, pack.side_multiple_px,
                 pack.training.get("buckets"), pack.training.get("resolutions_px")],
        "files": [[f.source, f.sha256, f.refused] for f in found], "words": dict(words),
        "decisions": decisions.fingerprint(), "wishes": wishes.fingerprint(),
    }  # fmt: skip
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _tools() -> dict[str, str]:
    return {"oblik": __version__, **{name: version_of(name) for name in TOOLS}}


def _verdicts(
    files: Sequence[Path], found: Sequence[Found], stack: FaceStack, buckets: Sequence[Bucket],
    impostors_MD: NDArray[np.float32] | None, decisions: Decisions, progress: Progress,
) -> list[Verdict]:  # fmt: skip
    done: dict[str, Verdict] = {}
    candidates: list[Candidate] = []
    for seen in examine_all(files, found, stack, progress):
        word = decisions.words.get(seen.found.sha256)
        if isinstance(seen, Verdict):
            done[seen.found.source] = seen
        elif word is not None and word.verdict == DROP:
            done[seen.found.source] = _dropped(seen, word)
        else:
            candidates.append(seen)
    decided, _ = decide(candidates, buckets, impostors_MD, TOLD_COSINES.get(stack.name))
    decided = [_fitted(verdict, buckets) for verdict in _kept(decided, decisions)]
    done.update((verdict.found.source, verdict) for verdict in decided)
    return [done[one.source] for one in found]


def _dropped(seen: Candidate, word: Word) -> Verdict:
    """Taken out before anything is compared, so that the next best of a burst takes its place."""
    return Verdict(seen.found, Status.set_aside, word.sentence(), seen.file, seen.thumb)


def _kept(verdicts: Sequence[Verdict], decisions: Decisions) -> list[Verdict]:
    """What the user keeps is accepted, in the group of its moment; it needs a face to be cut out around."""
    free = 1 + max((verdict.group for verdict in verdicts if verdict.group is not None), default=-1)
    done = []
    for verdict in verdicts:
        word = decisions.words.get(verdict.found.sha256)
        if word is not None and word.verdict == KEEP and verdict.crop and verdict.status is Status.set_aside:
            group, free = (free, free + 1) if verdict.group is None else (verdict.group, free)
            verdict = replace(verdict, status=Status.accepted, reason="", group=group)
        done.append(verdict)
    return done


def _fitted(verdict: Verdict, buckets: Sequence[Bucket]) -> Verdict:
    """In the largest bucket that the head fills, where the pack has several of one ratio."""
    if verdict.status is not Status.accepted or verdict.face is None or verdict.bucket is None:
        return verdict
    found = verdict.found
    bucket, crop = fit(verdict.face.landmarks, found.width_px, found.height_px, verdict.bucket, buckets)
    return replace(verdict, bucket=bucket, crop=crop)


def _require_enough(verdicts: Sequence[Verdict], photos_dir: Path) -> None:
    usable = [verdict.attributes for verdict in verdicts if verdict.status is Status.accepted]
    enough = judge(usable)
    if enough.ok:
        return
    hint = (
        f"add clear photos of other days and places to {photos_dir}, 40 are best, and run the command again"
    )
    if len(usable) >= FEWEST_PHOTOS:
        raise InvalidInput(enough.sentence, hint=hint)
    reasons = Counter(v.reason.split(" (")[0].split(" as ")[0] for v in verdicts if v.reason)
    why = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(4))
    raise InvalidInput(
        f"only {len(usable)} of {len(verdicts)} files can be used and {FEWEST_PHOTOS} are needed"
        + (f" ({why})" if why else ""),
        hint=hint,
    )


def _asymmetry(verdicts: Sequence[Verdict]) -> Asymmetry:
    return measure_asymmetry(
        [v.level for v in verdicts if v.status is Status.accepted and v.level is not None]
    )


def require_held_out(splits: Sequence[Split | None]) -> None:
    """Photos of one moment stay on one side, so a folder of few moments may leave nothing to measure with."""
    count = Counter(split for split in splits if split is not None)
    if not count[Split.train] or count[Split.validation] < MIN_VALIDATION:
        raise InvalidInput(
            f"the photos are of too few moments: {count[Split.validation]} could be held out, "
            f"{MIN_VALIDATION} are needed",
            hint="add photos of other days, or take a decision back with: oblik dataset undo",
        )


def _write_embeddings(file: Path, verdicts: Sequence[Verdict]) -> None:
    arrays = {
        v.found.sha256: np.asarray(v.embedding, np.float32) for v in verdicts if v.status is Status.accepted
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    atomic_write(file, buffer.getvalue())


def _keep_originals(vault: Vault, verdicts: Sequence[Verdict], progress: Progress) -> None:
    for verdict in verdicts:
        progress.check_cancelled()
        if verdict.status is not Status.accepted or verdict.file is None:
            continue
        if not vault.has(verdict.found.sha256):
            vault.put(read_original(verdict.file), kind=ORIGINALS, name=verdict.found.source)
