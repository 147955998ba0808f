"""A face reads as a word, only with the stack that the adapter was made for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from oblik.diffusion.identity import FILE, STACK, read_name
from oblik.miniature.architecture import TEXT_DIM, new_projector

VECTORS = np.eye(3, 128, dtype=np.float32)


@pytest.fixture
def projector(tmp_path: Path) -> torch.nn.Sequential:
    torch.manual_seed(0)
    made = new_projector()
    (tmp_path / FILE).parent.mkdir()
    save_file(made.state_dict(), tmp_path / FILE, metadata={STACK: "faces-1"})
    return made


def test_the_name_is_the_projection_of_the_mean_face(tmp_path: Path, projector: torch.nn.Sequential) -> None:
    name = read_name(tmp_path / FILE, VECTORS, "faces-1")
    mean = torch.nn.functional.normalize(torch.from_numpy(VECTORS.mean(0)), dim=0)
    assert name is not None
    assert name.shape == (TEXT_DIM,)
    assert torch.allclose(name, projector(mean), atol=1e-6)


@pytest.mark.usefixtures("projector")
def test_faces_of_another_stack_have_no_name(tmp_path: Path) -> None:
    assert read_name(tmp_path / FILE, VECTORS, "faces-2") is None
    assert read_name(tmp_path / FILE, VECTORS[:0], "faces-1") is None


def test_a_pack_without_an_adapter_has_no_names(tmp_path: Path) -> None:
    assert read_name(tmp_path / FILE, VECTORS, "faces-1") is None
