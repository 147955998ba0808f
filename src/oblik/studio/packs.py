"""Base models: pull them and delete them.

In: settings, the name of a pack, what of it. Out: the pulled pack with its lock. The only operation that may
open a connection beyond this machine is `pull_pack` without a folder to copy from.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from oblik.studio.house import home_of, now

if TYPE_CHECKING:
    from oblik.packs.pull import Pulled, Wish
    from oblik.progress import Progress
    from oblik.settings import Settings


def pull_pack(settings: Settings, wish: Wish, *, progress: Progress | None = None) -> Pulled:
    """Fetch a pack from the model hub, or from the folder that ``wish`` names."""
    from oblik.packs.hub import HubSource
    from oblik.packs.pull import pull
    from oblik.packs.sources import FolderSource
    from oblik.progress import SilentProgress

    source = FolderSource(Path(wish.copy), wish.entry.name) if wish.copy is not None else HubSource()
    return pull(wish, source, home_of(settings), now=now(), progress=progress or SilentProgress())


def remove_pack(settings: Settings, name: str) -> None:
    """Delete a pulled pack, and what an interrupted pull left of it."""
    from oblik.packs.store import remove

    remove(name, home_of(settings))
