"""What may change in a frame, the window that is drawn, the larger canvas: exact where nothing may."""

from __future__ import annotations

import numpy as np
import pytest

from oblik.errors import InvalidInput
from oblik.generation.frames import alpha_map, cut, outpainted, paste, window


def mask_with(box: tuple[int, int, int, int], width: int = 200, height: int = 100) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    left, top, right, bottom = box
    mask[top:bottom, left:right] = 255
    return mask


def test_a_hard_mask_fades_inside_its_outline_and_is_zero_outside() -> None:
    mask = mask_with((50, 20, 150, 80))
    alpha = alpha_map(mask)
    assert (alpha[mask == 0] == 0).all()
    assert 0 < alpha[20, 100] < alpha[21, 100] < 255
    assert alpha[50, 100] == 255


def test_a_mask_at_the_frames_edge_does_not_fade_there() -> None:
    alpha = alpha_map(mask_with((0, 0, 100, 100)))
    assert alpha[0, 0] == 255
    assert alpha[50, 99] < 255
    assert (alpha_map(np.full((9, 9), 255, np.uint8)) == 255).all()


def test_a_mask_with_grey_levels_is_an_alpha_map_already() -> None:
    soft = mask_with((50, 20, 150, 80))
    soft[30:40, 60:70] = 100
    assert (alpha_map(soft) == soft).all()
    with pytest.raises(InvalidInput, match="black"):
        alpha_map(np.zeros((9, 9), np.uint8))


def test_a_frame_of_the_packs_size_is_drawn_whole() -> None:
    assert window(mask_with((40, 40, 60, 60), 128, 128), 128, 16) == ((0, 0, 128, 128), (128, 128))


@pytest.mark.parametrize("box", [(10, 10, 60, 70), (900, 500, 1000, 600), (300, 0, 900, 600)])
def test_a_window_holds_the_mask_and_lies_inside_a_large_frame(box: tuple[int, int, int, int]) -> None:
    (left, top, right, bottom), (width, height) = window(mask_with(box, 1000, 600), 128, 16)
    assert 0 <= left <= box[0] < box[2] <= right <= 1000
    assert 0 <= top <= box[1] < box[3] <= bottom <= 600
    assert right - left >= min(1000, 128)
    assert width % 16 == height % 16 == 0
    assert 0.7 < width * height / 128**2 < 1.4
    assert abs(np.log((right - left) / (bottom - top) * height / width)) < 0.15


@pytest.mark.parametrize(
    ("asked", "size"),
    [("16", (232, 132)), ("0,0,50,0", (250, 100)), ("1:1", (200, 200)), ("3:1", (300, 100))],
)
def test_a_canvas_grows_as_asked_and_keeps_the_frame(asked: str, size: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    own = mask_with((90, 40, 110, 60))
    canvas, alpha = outpainted(frame, own, asked)
    assert canvas.shape[1::-1] == alpha.shape[::-1] == size
    kept = canvas[alpha == 0]
    assert len(kept) > 0.6 * 200 * 100
    assert kept.mean() == pytest.approx(frame.mean(), abs=3)
    assert (alpha == 255).any()
    middle = alpha[alpha.shape[0] // 2, alpha.shape[1] // 2 if asked != "0,0,50,0" else 100]
    assert middle == 255, "the frame's own mask stays where it was"


@pytest.mark.parametrize("asked", ["0", "2:1", "wide", "1,2", "0:1", "9999"])
def test_what_adds_nothing_or_means_nothing_is_refused(asked: str) -> None:
    with pytest.raises(InvalidInput):
        outpainted(np.zeros((100, 200, 3), np.uint8), np.zeros((100, 200), np.uint8), asked)


@pytest.mark.parametrize("drawn_px", [16, 64, 90])
def test_pasting_keeps_every_byte_where_alpha_is_zero(drawn_px: int) -> None:
    rng = np.random.default_rng(1)
    frame = rng.integers(0, 256, (100, 200, 3), dtype=np.uint8)
    alpha = alpha_map(mask_with((60, 30, 110, 70)))
    drawn = rng.random((drawn_px, drawn_px, 3)).astype(np.float32)
    result = paste(frame, drawn, alpha, (40, 10, 130, 100))
    assert (result[alpha == 0] == frame[alpha == 0]).all()
    assert (result[alpha == 255] != frame[alpha == 255]).any()
    untouched = frame.copy()
    assert (paste(frame, drawn, np.zeros_like(alpha), (0, 0, 200, 100)) == untouched).all()


def test_a_window_that_needs_no_scaling_is_cut_bit_for_bit() -> None:
    frame = np.random.default_rng(2).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    assert (cut(frame, (10, 20, 74, 84), (64, 64)) == frame[20:84, 10:74]).all()
    assert cut(frame, (10, 20, 74, 84), (32, 32)).shape == (32, 32, 3)
