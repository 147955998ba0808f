"""The noun `Pack`: a versioned base model with everything that belongs to it.

What is written to ``pack.json`` in the pack's folder. Knows nothing of tensors: a pack is files
with hashes, sources and licences, the family that loads them, and the defaults of its plans.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def inner_path(path: str) -> str:
    """``path`` itself, when it stays inside the folder that it is relative to."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or {"..", "."} & set(parts) or "\\" in path or ":" in path:
        raise ValueError(f"{path!r} is not a plain path inside the folder")
    return path


InnerPath = Annotated[str, AfterValidator(inner_path)]


class PackFile(BaseModel):
    """One file, relative to the pack's folder."""

    model_config = ConfigDict(extra="forbid")

    path: InnerPath
    bytes: int
    sha256: str


class Component(BaseModel):
    """One part of a pack: transformer, text_encoder, vae, tokenizer, scheduler, faces...

    ``source`` is a repository of a model hub, ``revision`` the commit of it; what was made here has none.
    """

    model_config = ConfigDict(extra="forbid")

    source: str
    revision: str | None = None
    licence: str
    commercial_use: bool
    format: str = "diffusers"
    files: list[PackFile]


class Pack(BaseModel):
    """A base model. ``defaults`` is a partial plan; ``limits`` says plainly what it cannot do."""

    model_config = ConfigDict(extra="forbid")

    name: str
    version: str
    family: str
    native_size_px: int
    side_multiple_px: int
    defaults: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    face_stack: dict[str, Any] = Field(default_factory=dict)
    synthetic: bool = False
    limits: str = ""
    components: dict[str, Component] = Field(default_factory=dict)


class OpenPack(BaseModel):
    """A pack that lies in a folder on this machine. ``own`` holds parts that were trained here for it."""

    manifest: Pack
    folder: Path
    own: Path | None = None

    def find(self, part: str) -> Path:
        """A file or folder of the pack: the one that was trained here, else its own; it need not exist."""
        mine = self.own / part if self.own else None
        return mine if mine and mine.exists() else self.folder / part

    @property
    def tokenizer_file(self) -> Path:
        """The fast tokenizer of the text encoder."""
        return self.folder / "tokenizer" / "tokenizer.json"

    @property
    def words_folder(self) -> Path:
        """The caption network, where the pack has one: ``words.onnx`` and ``words.json``."""
        return self.folder / "words"

    @property
    def faces_folder(self) -> Path:
        """ONNX face networks, ``faces.json`` and the impostor embeddings ``impostors.npz``."""
        return self.folder / "faces"
