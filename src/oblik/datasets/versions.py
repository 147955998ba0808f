"""Versions on disk: built in a folder that nobody sees, published whole, never changed.

In: the persona's ``datasets`` folder. Out: a building folder, a read-only version ``v001``..., and what is
wrong with the files of one. A build that was killed leaves a hidden folder without a version's name; the next
build sweeps it away. Knows nothing of what the files mean.
Not guaranteed: read-only files keep mistakes out, not their owner.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from oblik.datasets.manifest import MANIFEST, read_dataset
from oblik.errors import BackendError, Conflict
from oblik.paths import private_dir, sha256_file

BUILDING = ".building-"
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def building(datasets: Path) -> Iterator[Path]:
    """A folder to build in; it is gone afterwards unless it was published.

    Raises BackendError when the disk is full.
    """
    sweep(datasets)
    folder = Path(tempfile.mkdtemp(prefix=f"{BUILDING}{os.getpid()}-", dir=private_dir(datasets)))
    try:
        yield folder
    except OSError as problem:
        if problem.errno not in FULL:
            raise
        raise BackendError(
            "the disk is full; nothing of the new version was kept",
            hint="free some space and run the same command again; oblik doctor says how much there is",
        ) from problem
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(datasets: Path) -> None:
    """Remove what builds that were killed left behind; a folder of a process that lives is left alone."""
    for folder in datasets.glob(f"{BUILDING}*") if datasets.is_dir() else ():
        number = folder.name.removeprefix(BUILDING).partition("-")[0]
        if not number.isdecimal() or not psutil.pid_exists(int(number)):
            shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, target: Path) -> None:
    """Make every file read-only and give the folder its name. Raises Conflict when the name is taken."""
    for file in files_in(folder):
        file.chmod(0o400)
    try:
        if target.exists():
            raise FileExistsError(errno.EEXIST, "taken")
        folder.rename(target)
    except OSError as taken:
        if taken.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        raise Conflict(
            f"{target.name} was written by another build meanwhile", hint="oblik dataset list"
        ) from taken


def hashes(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file but the manifest."""
    return {
        file.relative_to(folder).as_posix(): sha256_file(file)
        for file in files_in(folder)
        if file != folder / MANIFEST
    }


def files_in(folder: Path) -> list[Path]:
    """Every file below ``folder``, by path."""
    return sorted(file for file in folder.rglob("*") if file.is_file())


def verify(folder: Path) -> list[str]:
    """What is wrong with a version's files, one sentence each; empty when they are as the manifest says.

    A manifest of an older Oblik lists only the pictures; then only they are checked.
    """
    dataset = read_dataset(folder)
    known = dataset.files or {p.path: p.sha256 or "" for p in dataset.accepted() if p.path}
    problems = []
    for name, sha256 in sorted(known.items()):
        file = folder / name
        if not file.is_file():
            problems.append(f"{name} is missing")
        elif sha256_file(file) != sha256:
            problems.append(f"{name} was changed")
    if dataset.files:
        here = {file.relative_to(folder).as_posix() for file in files_in(folder)} - {MANIFEST}
        problems += [f"{name} does not belong to it" for name in sorted(here - set(known))]
    return problems
