"""A little of a restored face, on the face alone; what may not be used is refused by name."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from oblik.errors import BackendUnavailable, InvalidInput, NotFound
from oblik.faces.align import similarity, transform
from oblik.faces.masks import face_mask
from oblik.generation.restoration import FACE_PX, FFHQ_52, open_restorer, restored

LANDMARKS = np.array([[80, 90], [130, 96], [102, 120], [78, 142], [120, 148]], np.float32)
STAND_IN = """
class ModelLoader:
    def __init__(self, device): self.device = device
    def load_from_file(self, path):
        import torch
        class Network(torch.nn.Module):
            def forward(self, x):
                assert x.shape == (1, 3, 512, 512) and -1 <= float(x.min()) < -0.5
                return -x + 0 * torch.randn_like(x), []
        class Found:
            class architecture: id = "GFPGAN"
            model = Network()
        return Found
"""


def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (240, 200, 3)).astype(np.uint8)


def test_the_face_changes_by_the_weight_and_nothing_else_does() -> None:
    seen = []

    def white(face_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
        seen.append(face_HW3.shape)
        return np.full_like(face_HW3, 255)

    before = picture()
    after = restored(before, LANDMARKS, white, 0.2)
    mask = face_mask(LANDMARKS, 200, 240)
    assert seen == [(FACE_PX, FACE_PX, 3)]
    assert np.array_equal(after[mask == 0], before[mask == 0]), "off the face not a bit"
    whole = mask == 255
    assert whole.sum() > 1000
    wanted = np.rint(before[whole] + 0.2 * (255.0 - before[whole]))
    assert np.array_equal(after[whole], wanted)


def test_the_face_lies_in_the_crop_as_the_networks_know_it_and_comes_back_in_place() -> None:
    """The crop itself, given back, is the face again: what is left is resampling."""
    smooth = np.asarray(np.linspace(0, 255, 240)[:, None, None] * np.ones((1, 200, 3)), np.uint8)
    after = restored(smooth, LANDMARKS, lambda face: face, 0.2)
    assert np.abs(after.astype(int) - smooth).max() <= 1
    placed = transform(similarity(LANDMARKS, FFHQ_52), LANDMARKS)
    assert np.abs(placed - FFHQ_52).max() < 60


@pytest.mark.parametrize("weight", [0.0, -0.1, 0.21, 1.0])
def test_more_than_a_fifth_is_refused(weight: float) -> None:
    with pytest.raises(InvalidInput, match=r"at most 0\.2"):
        restored(picture(), LANDMARKS, lambda face: face, weight)


def test_a_licence_without_commercial_use_is_accepted_by_name_or_not_at_all(tmp_path: Path) -> None:
    weights = tmp_path / "codeformer.pth"
    weights.write_bytes(b"")
    for accepted in ((), ("yes",)):
        with pytest.raises(InvalidInput, match="non-commercial") as refused:
            open_restorer("codeformer", weights, accepted=accepted)
        assert "--accept-licence S-Lab-License-1.0" in refused.value.hint
    with pytest.raises(NotFound, match="no weights"):
        open_restorer("gfpgan", tmp_path / "absent.pth")
    if "spandrel" not in sys.modules:
        with pytest.raises(BackendUnavailable) as missing:
            open_restorer("codeformer", weights, accepted=("S-Lab-License-1.0",))
        assert missing.value.hint == "pip install 'oblik[restore]'"


def test_the_backend_speaks_minus_one_to_one_and_leaves_the_random_state_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """spandrel itself is played by a stand-in: the real one needs torchvision."""
    torch = pytest.importorskip("torch")
    (tmp_path / "spandrel.py").write_text(STAND_IN)
    (tmp_path / "spandrel_extra_arches.py").write_text("def install(**_): pass\n")
    (tmp_path / "weights.pth").write_bytes(b"")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        restorer = open_restorer("gfpgan", tmp_path / "weights.pth", device="cpu")
        face = np.arange(512 * 512 * 3, dtype=np.int64).reshape(512, 512, 3).astype(np.uint8)
        state = torch.get_rng_state()
        assert np.array_equal(restorer(face), 255 - face)
        assert torch.equal(torch.get_rng_state(), state)
        with pytest.raises(InvalidInput, match="holds GFPGAN, not codeformer"):
            open_restorer("codeformer", tmp_path / "weights.pth", accepted=("S-Lab-License-1.0",))
    finally:
        for name in ("spandrel", "spandrel_extra_arches", "oblik.generation.backends.restorers"):
            sys.modules.pop(name, None)
