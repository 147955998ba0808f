"""Datasets: from photos to what a trainer learns from.

In: settings and paths. Out: datasets. Knows nothing of training.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from oblik.studio.house import PACKS_OWN, face_stack_of, home_of, now, pack_of
from oblik.studio.people import show_persona

if TYPE_CHECKING:
    from oblik.datasets.manifest import Dataset
    from oblik.progress import Progress
    from oblik.settings import Settings


class BuiltDataset(NamedTuple):
    """A dataset, where it lies, and whether it was there already."""

    dataset: Dataset
    folder: Path
    unchanged: bool


def build_dataset(
    settings: Settings, photos: Path, slug: str | None = None, *, progress: Progress | None = None
) -> BuiltDataset:
    """Turn a folder of photos into the next version of the persona's dataset.

    Raises:
        ConsentError: the consent does not cover portraits.
        InvalidInput: fewer than 8 usable photos.
        BackendUnavailable: the pack's face stack needs something that is not installed.
    """
    from oblik.datasets.build import build_dataset as build
    from oblik.likeness.pairs import Impostors
    from oblik.paths import latest_version
    from oblik.progress import SilentProgress

    persona, pack, home = show_persona(settings, slug), pack_of(settings), home_of(settings)
    datasets = home.persona(persona.slug).datasets
    before, strangers = latest_version(datasets), pack.faces_folder / "impostors.npz"
    comparable = strangers.is_file() and settings.face_stack == PACKS_OWN
    known = Impostors.load(strangers).embeddings_MD if comparable else None
    dataset = build(
        persona, photos, home=home, stack=face_stack_of(pack, settings), pack=pack.manifest, now=now(),
        progress=progress or SilentProgress(), impostors_MD=known,
    )  # fmt: skip
    return BuiltDataset(dataset, datasets / dataset.version, unchanged=dataset.version == before)


def list_datasets(settings: Settings, slug: str | None = None) -> list[Dataset]:
    """Every version of the persona's dataset, oldest first."""
    from oblik.datasets.manifest import read_dataset
    from oblik.paths import versions

    persona = show_persona(settings, slug)
    folder = home_of(settings).persona(persona.slug).datasets
    return [read_dataset(folder / version) for version in versions(folder)]
