"""The memory plan of a pack.

In: a pack, or only its name, and what is asked. Out: a `MemoryPlan`. Loads no weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oblik.diffusion.device import total_vram
from oblik.diffusion.memory import architecture_of, make_plan
from oblik.errors import InvalidInput
from oblik.packs.catalogue import catalogue
from oblik.packs.manifest import OpenPack
from oblik.packs.memory_plan import Asked, MemoryPlan


def plan(name: str, pack: OpenPack | None, asked: Mapping[str, Any]) -> MemoryPlan:
    """Plan for ``asked``; without ``vram_bytes`` for the card of this machine.

    Raises:
        NotFound: the pack is neither here nor known.
        InvalidInput: no memory was named and there is no card.
        OutOfMemory: no configuration fits.
    """
    wishes = {key: value for key, value in asked.items() if value is not None}
    if "vram_bytes" not in wishes:
        wishes["vram_bytes"] = total_vram()
    if not wishes["vram_bytes"]:
        raise InvalidInput("this machine has no CUDA card to ask", hint=f"oblik plan {name} --vram 16")
    known = pack.manifest if pack else getattr(catalogue().get(name), "pack", None)
    if known is not None:
        side = known.native_size_px
        wishes = {"width_px": side, "height_px": side, **wishes}
    return make_plan(architecture_of(name, pack), Asked(pack=name, **wishes))
