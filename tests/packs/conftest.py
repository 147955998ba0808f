"""A hub on loopback with a small pack in two repositories, and an entry that names them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from tests.packs.loopback_hub import BASE, EXTRA, QUANTS, LoopbackHub, serve

from oblik.packs.catalogue import Entry
from oblik.packs.hub import HubSource
from oblik.packs.pull import Pulled, Wish, pull
from oblik.packs.sources import FolderSource
from oblik.paths import Home
from oblik.progress import SilentProgress

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackHub]:
    """``HF_ENDPOINT`` names it; the machine's own token and cache are out of reach."""
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with serve() as hub:
        hub.commit("maker/tiny", BASE)
        hub.commit("quants/tiny-GGUF", QUANTS)
        hub.commit("maker/tiny-edit", EXTRA)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def part(component: str, repository: str, *files: str, **more: Any) -> dict[str, Any]:
    places = {name: f"{component}/{name}" for name in files if name.endswith((".gguf", ".safetensors"))}
    places = {name: place for name, place in places.items() if "/" not in name}
    return {
        "component": component, "repository": repository, "format": "diffusers", "licence": "Apache-2.0",
        "licence_url": "https://example.org/licence", "commercial_use": True, "seen": ["made here"],
        "files": [{"file": name, "path": places.get(name, name)} for name in files],
        **more,
    }  # fmt: skip


@pytest.fixture
def told() -> dict[str, Any]:
    """The entry as JSON would have it; tests change it before they read it."""
    pack = {
        "name": "tiny", "version": "1", "family": "qwen_image", "native_size_px": 128, "side_multiple_px": 16,
    }  # fmt: skip
    return {
        "pack": pack,
        "variants": {"q6": "large", "q4": "small"},
        "options": {"edit": "a second transformer"},
        "parts": [
            part("pipeline", "maker/tiny", "model_index.json"),
            part("transformer", "quants/tiny-GGUF", "tiny-Q6.gguf", variant="q6", format="gguf"),
            part("transformer", "quants/tiny-GGUF", "tiny-Q4.gguf", variant="q4", format="gguf"),
            part("vae", "maker/tiny", "vae/model.safetensors", "vae/config.json"),
            part("edit", "maker/tiny-edit", "edit.safetensors", option="edit"),
        ],
    }


@pytest.fixture
def get(home: Home, told: dict[str, Any]) -> Callable[..., Pulled]:
    """Pull the entry with these choices; ``copy`` is a folder to copy from."""

    def run(progress: SilentProgress | None = None, into: Home = home, **choices: Any) -> Pulled:
        choices.setdefault("variant", "q4")
        wish = Wish(Entry.model_validate(told), "tiny", **choices)
        source = FolderSource(Path(wish.copy), "tiny") if wish.copy else HubSource()
        return pull(wish, source, into, now=NOW, progress=progress or SilentProgress())

    return run
