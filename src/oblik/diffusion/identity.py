"""The identity adapter of a pack: a face vector, read as the embedding of a word.

In: the adapter's file and unit face vectors of one person, from the face stack that it was trained with. Out:
the word's embedding, or None where there is no adapter or another stack measured the faces.
Knows nothing of photos. The idea is that of E4T and PhotoMaker: a face names itself.

N photos, D face vector, E embedding width.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn

FILE = Path("identity") / "projector.safetensors"
STACK = "face_stack"


@torch.no_grad()
def read_name(file: Path, vectors_ND: NDArray[np.float32], face_stack: str) -> Tensor | None:
    """The embedding (E,) of a word for the person whose photos these are."""
    if not file.is_file() or not len(vectors_ND):
        return None
    with safe_open(file, "pt") as stored:
        if (stored.metadata() or {}).get(STACK) != face_stack:
            return None
        weights = {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118
    mean = torch.from_numpy(vectors_ND.mean(axis=0)).float()
    hidden = nn.functional.linear(
        nn.functional.normalize(mean, dim=0), weights["0.weight"], weights["0.bias"]
    )
    return nn.functional.linear(nn.functional.silu(hidden), weights["2.weight"], weights["2.bias"])
