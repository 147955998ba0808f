"""Which photos somebody means by the names they type.

In: names (the file, its path in the folder, or the beginning of its hash) and the newest version. Out: its
rows. A path of a file on disk is known by its content, also before there is a version. Knows nothing of
decisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from oblik.datasets.manifest import Dataset, Photo, Status
from oblik.errors import InvalidInput, NotFound
from oblik.paths import sha256_file

SHORTEST_HASH = 6


def sources_of(names: Iterable[str], datasets: Sequence[Dataset]) -> list[Photo]:
    """One row for each name. Raises NotFound, or InvalidInput when several photos have the name."""
    photos = [photo for dataset in datasets for photo in dataset.photos if photo.source_sha256]
    found = []
    for name in names:
        matching = _matching(name, photos) or _on_disk(name)
        if not matching:
            raise NotFound(f"no photo is called {name!r}", hint="oblik dataset show")
        if len({photo.source_sha256 for photo in matching}) > 1:
            which = ", ".join(photo.source for photo in matching[:4])
            raise InvalidInput(f"{name!r} could be {which}", hint="give the path within the photo folder")
        found.append(matching[0])
    return found


def refuse_unkeepable(photos: Iterable[Photo]) -> None:
    """Raise InvalidInput for a photo that no decision can bring in: unreadable, or without a face."""
    for photo in photos:
        faceless = photo.status is Status.set_aside and "identity_cosine" not in photo.flags and photo.reason
        if photo.status is Status.refused or (faceless and "by you" not in photo.reason):
            raise InvalidInput(
                f"{photo.source} cannot be kept: {photo.reason}",
                hint="the report shows what can be used: oblik dataset show",
            )


def _matching(name: str, photos: Sequence[Photo]) -> list[Photo]:
    exact = [photo for photo in photos if photo.source == name]
    by_name = [photo for photo in photos if Path(photo.source).name == name]
    by_hash = [p for p in photos if len(name) >= SHORTEST_HASH and p.source_sha256.startswith(name.lower())]
    return exact or by_name or by_hash


def _on_disk(name: str) -> list[Photo]:
    file = Path(name)
    if not file.is_file():
        return []
    return [Photo(source=file.name, source_sha256=sha256_file(file), status=Status.accepted)]
