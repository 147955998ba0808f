"""A small pack, and an environment that commands give back as it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from oblik.paths import Home


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """The command line prepares the environment of libraries; give it back afterwards."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def tiny_pack(home: Home) -> Path:
    """The folder of a pack ``tiny`` in ``home``, with a manifest that is true."""
    folder = home.packs / "tiny"
    files = {"vae/model.bin": b"weights" * 100, "vae/config.json": b"{}", "tokenizer/tokenizer.json": b"[]"}
    components: dict[str, Any] = {}
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        part = components.setdefault(
            path.split("/")[0],
            {"source": "made here", "licence": "Apache-2.0", "commercial_use": True, "files": []},
        )
        part["files"].append({"path": path, "bytes": len(content), "sha256": sha256(content).hexdigest()})
    manifest = {
        "name": "tiny",
        "version": "3",
        "family": "qwen_image",
        "native_size_px": 128,
        "side_multiple_px": 16,
        "limits": "knows three words",
        "components": components,
    }
    (folder / "pack.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder
