"""No more of a picture in memory than agreed: large files one at a time, colours in strips."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oblik.photos.pixels import STRIP_PX, Room, decode, open_picture


def test_threads_never_hold_more_than_the_room() -> None:
    room, lock, held, most = Room(50), threading.Lock(), [], []

    def work(pixels: int) -> int:
        with room.take(pixels):
            with lock:
                held.append(pixels)
                most.append(list(held))
            time.sleep(0.02)
            with lock:
                held.remove(pixels)
        return pixels

    wanted = [12, 12, 12, 48, 12, 120, 12, 12, 12, 12, 60, 12]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, wanted)) == wanted, "everybody has their turn"
    assert all(sum(together) <= 50 or len(together) == 1 for together in most)
    assert any(len(together) > 1 for together in most), "small ones are decoded side by side"
    assert room.free == 50


def test_an_error_gives_the_room_back() -> None:
    room = Room(50)
    with pytest.raises(OSError, match="damaged"), room.take(80):
        raise OSError("damaged")
    assert room.free == 50


def test_large_pictures_are_decoded_one_at_a_time() -> None:
    """Of four PNGs of 30 megapixels, 120 MB each, one is in memory."""
    pytest.importorskip("resource", reason="measures memory as POSIX systems count it")
    script = Path(__file__).with_name("decode_large.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), "6000", "5000", "4"],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout)
    assert 120 < figures["peak"] - figures["before"] < 1.5 * 120
    assert figures["peak"] < 700


@pytest.mark.parametrize(("mode", "side_px"), [("RGBA", 150), ("LA", 900), ("P", 150), ("I;16", 200)])
def test_strips_show_the_same_picture(mode: str, side_px: int) -> None:
    """A picture of 2301 x 1801 pixels, so that neither strips nor blocks come out even."""
    x, y = np.meshgrid(np.linspace(0, 1, 2301), np.linspace(0, 1, 1801))
    assert x.size > STRIP_PX
    if mode == "I;16":
        image = Image.fromarray((65535 * x * y).astype(np.uint16))
        plain = Image.fromarray((255 * x * y).astype(np.uint8))
    else:
        colours = np.stack([255 * x, 255 * y, 255 * (1 - x), 255 * (0.3 + 0.7 * y)], axis=2).astype(np.uint8)
        image = Image.fromarray(colours, "RGBA") if "A" in mode else Image.fromarray(colours[..., :3])
        image = image.convert(mode)
        layers = image.convert("RGBA")
        plain = Image.new("RGBA", image.size, (255, 255, 255, 255))
        plain.alpha_composite(layers)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    decoded = decode(open_picture(buffer.getvalue()), side_px)
    assert (decoded.width_px, decoded.height_px) == (2301, 1801)
    wanted = plain.convert("RGB").resize(decoded.image.size, Image.Resampling.HAMMING)
    assert min(decoded.image.size) == side_px
    apart = np.abs(np.asarray(decoded.image, float) - np.asarray(wanted, float))
    assert apart.mean() < 1.5
    assert apart[:, -1].mean() < 4, "nothing is lost at the rim"
    assert apart[-1].mean() < 4
