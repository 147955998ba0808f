"""Datasets: from photos to what a trainer learns from.

In: settings and plain values. Out: datasets. Knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from oblik.studio.house import engine_of, face_pack_of, face_stack_of, home_of, now, pack_of
from oblik.studio.operations import operation
from oblik.studio.people import list_personas, show_persona

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from oblik.datasets.extras import Wishes
    from oblik.datasets.manifest import Dataset
    from oblik.packs.manifest import OpenPack
    from oblik.paths import Home
    from oblik.progress import Progress
    from oblik.settings import Settings


class BuiltDataset(NamedTuple):
    """A dataset, where it lies, and whether it was there already."""

    dataset: Dataset
    folder: Path
    unchanged: bool


@dataclass(frozen=True)
class DatasetWishes:
    """What somebody asked for. A number of pictures or a folder of them; None leaves it to the pack."""

    captions: str | None = None
    class_images: int | Path | None = None
    negatives: int | Path | None = None
    augment: int | None = None
    flip: bool = False
    seed: int = 0


def build_dataset(
    settings: Settings,
    photos: Path,
    slug: str | None = None,
    *,
    wishes: DatasetWishes | None = None,
    progress: Progress | None = None,
    say: Callable[[str], object] | None = None,
) -> BuiltDataset:
    """Turn a folder of photos into the next version of the persona's dataset.

    ``say`` is told when pictures of other people that the pack advises are left out.

    Raises:
        ConsentError: the consent does not cover portraits.
        InvalidInput: fewer than 8 usable photos, or words that no caption may have.
        BackendUnavailable: the pack's face stack, or what is asked for captions, is not there.
    """
    from oblik.datasets.build import build_dataset as build
    from oblik.paths import latest_version
    from oblik.progress import SilentProgress

    persona, home = show_persona(settings, slug), home_of(settings)
    datasets = home.persona(persona.slug).datasets
    before = latest_version(datasets)
    progress = progress or SilentProgress()
    with operation(settings, "dataset build", persona.slug) as details:
        pack = pack_of(settings)
        stack = face_stack_of(pack, settings)
        faces = face_pack_of(pack, settings)
        rendered = faces is not None and faces.manifest.synthetic
        others = _others(settings, persona.slug)
        dataset = build(
            persona, photos, home=home, stack=stack, pack=pack.manifest, now=now(),
            progress=progress, impostors_MD=_strangers(home, pack, stack.name),
            wishes=_wishes(
                settings, pack, _advised(pack, settings, wishes, say), others, progress, rendered
            ),
            rendered_faces=rendered,
        )  # fmt: skip
        details.update(dataset=dataset.version, photos=len(dataset.accepted()))
    return BuiltDataset(dataset, datasets / dataset.version, unchanged=dataset.version == before)


def list_datasets(settings: Settings, slug: str | None = None) -> list[Dataset]:
    """Every version of the persona's dataset, oldest first."""
    from oblik.datasets.manifest import read_dataset
    from oblik.paths import versions

    folder = _datasets(settings, slug)
    return [read_dataset(folder / version) for version in versions(folder)]


def show_dataset(
    settings: Settings, version: str | None = None, slug: str | None = None
) -> tuple[Dataset, Path]:
    """One version, the newest unless named, and its folder. Raises NotFound when there is none."""
    from oblik.datasets.manifest import read_dataset
    from oblik.errors import NotFound
    from oblik.paths import latest_version, versions

    folder = _datasets(settings, slug)
    chosen = version or latest_version(folder)
    if chosen is None or chosen not in versions(folder):
        raise NotFound(
            f"there is no dataset {chosen or ''}".rstrip(),
            hint="oblik dataset list" if version else "oblik dataset build PHOTOS",
        )
    return read_dataset(folder / chosen), folder / chosen


def verify_dataset(settings: Settings, version: str | None = None, slug: str | None = None) -> list[str]:
    """What is wrong with the files of a version; empty when they are as its manifest says."""
    from oblik.datasets.versions import verify

    return verify(show_dataset(settings, version, slug)[1])


def decide_photos(
    settings: Settings, names: Sequence[str], verdict: Literal["keep", "drop"], slug: str | None = None,
    *, reason: str = "",
) -> list[str]:  # fmt: skip
    """Keep or drop photos in the next version; what they are called in the newest one.

    Raises NotFound for a name that no photo has, InvalidInput for one that is not clear or can't be kept.
    """
    from oblik.datasets.choose import refuse_unkeepable, sources_of
    from oblik.datasets.decisions import decide_photos as decide

    with operation(settings, "dataset decide", show_persona(settings, slug).slug) as details:
        named = sources_of(names, list_datasets(settings, slug)[-1:])
        if verdict == "keep":
            refuse_unkeepable(named)
        sources = {photo.source_sha256: photo.source for photo in named}
        decide(_datasets(settings, slug), sources, verdict, reason)
        details.update(verdict=verdict, photos=len(sources))
    return sorted(sources.values())


def undo_decisions(settings: Settings, names: Sequence[str] = (), slug: str | None = None) -> list[str]:
    """Take back what was decided about the photos named, or the last command; the photos it was about."""
    from oblik.datasets.choose import sources_of
    from oblik.datasets.decisions import forget, undo_last

    folder = _datasets(settings, slug)
    with operation(settings, "dataset decide", show_persona(settings, slug).slug) as details:
        if names:
            photos = sources_of(names, list_datasets(settings, slug)[-1:])
            taken = forget(folder, [photo.source_sha256 for photo in photos])
        else:
            taken = undo_last(folder)
        details.update(verdict="undo", photos=len(taken))
    return taken


def export_captions(settings: Settings, file: Path, slug: str | None = None) -> int:
    """Write the captions of the newest version as one CSV; how many there are."""
    from oblik.datasets.edits import export_captions as export

    with operation(settings, "dataset captions", show_persona(settings, slug).slug):
        return export(show_dataset(settings, None, slug)[0], file)


def edit_captions(settings: Settings, file: Path | None = None, slug: str | None = None) -> BuiltDataset:
    """Captions from a CSV, or those edited in the working copy, as a new version; unchanged without an edit.

    Raises InvalidInput that names every caption that can't be used; then nothing was written.
    """
    from oblik.datasets.edits import import_captions, picked_up, recaption

    persona, folder = show_persona(settings, slug), _datasets(settings, slug)
    with operation(settings, "dataset captions", persona.slug) as details:
        dataset, _ = show_dataset(settings, None, slug)
        changed = picked_up(folder, dataset) if file is None else import_captions(dataset, file)
        made = recaption(folder, dataset, persona, changed, now(), _others(settings, persona.slug))
        details["dataset"] = made.version
    return BuiltDataset(made, folder / made.version, unchanged=made.version == dataset.version)


def _strangers(home: Home, pack: OpenPack, stack: str) -> NDArray[np.float32] | None:
    """Faces of other people, where there are some: with them strangers in the folder are told apart."""
    from oblik.errors import NotFound
    from oblik.flows.impostors import open_impostors

    try:
        return open_impostors(home, pack, stack).embeddings_MD
    except NotFound:
        return None


def _datasets(settings: Settings, slug: str | None) -> Path:
    return home_of(settings).persona(show_persona(settings, slug).slug).datasets


def _others(settings: Settings, slug: str) -> tuple[str, ...]:
    return tuple(other.trigger for other in list_personas(settings) if other.slug != slug)


def _advised(
    pack: OpenPack, settings: Settings, asked: DatasetWishes | None, say: Callable[[str], object] | None
) -> DatasetWishes:
    """What was asked; none where the pack's advice, which fills the rest, is not for this machine."""
    from oblik.flows.class_images import why_unpainted

    asked = asked or DatasetWishes()
    unasked = asked.class_images is None or asked.negatives is None
    why = why_unpainted(pack, settings.device) if unasked else ""
    if not why:
        return asked
    if say is not None:
        say(f"no pictures of other people are painted: {why}; --class-images and --negatives take a folder")
    return replace(asked, class_images=asked.class_images or 0, negatives=asked.negatives or 0)


def _wishes(
    settings: Settings, pack: OpenPack, asked: DatasetWishes, others: tuple[str, ...], progress: Progress,
    rendered: bool,
) -> Wishes:  # fmt: skip
    from oblik.datasets.extras import Wishes
    from oblik.datasets.manifest import Augmentation
    from oblik.datasets.sources import open_source, usual_source
    from oblik.errors import BackendUnavailable
    from oblik.flows.class_images import painter_of

    if asked.captions == "model" and pack.manifest.synthetic:
        raise BackendUnavailable(
            f"the text encoder of the pack {pack.manifest.name!r} reads words and cannot see",
            hint="leave --captions out, or choose a larger pack: oblik pack list",
        )
    if asked.captions is None:
        blind = pack.manifest.synthetic and not rendered  # its network never saw a photograph
        source = open_source("words") if blind else usual_source(pack)
    elif asked.captions == "network":
        source = open_source("network", folder=pack.words_folder)
    elif asked.captions == "model":
        source = open_source("model", folder=pack.folder, device=settings.device)
    else:
        source = open_source(asked.captions)
    return Wishes(
        source=source, others=others,
        class_images=asked.class_images, negatives=asked.negatives,
        augmentation=None if asked.augment is None else Augmentation(
            copies=asked.augment, flip=asked.flip, seed=asked.seed
        ),
        painter=painter_of(
            pack, lambda: engine_of(settings, pack), home=home_of(settings), progress=progress, now=now()
        ),
    )  # fmt: skip
