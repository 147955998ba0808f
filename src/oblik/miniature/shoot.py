"""Writes a folder of photographs as one would copy it from a phone.

In: a person's seed, a number of photos and an empty folder.  Out: JPEG files
with camera data (make, time, place, orientation), among them near-duplicates,
a burst, a stranger and a damaged file, and the list of what is what.  Nothing
about the truth is written into the folder unless asked.  It does not know
datasets, models or training.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from oblik.miniature.people import Person
from oblik.miniature.render import render
from oblik.miniature.shots import EXPRESSIONS, LIGHTS, SCENES, Shot

U8 = NDArray[np.uint8]
ASPECTS = ((3, 4), (4, 3), (1, 1), (9, 16))
LONG_SIDES = (480, 560, 640, 720, 800, 960, 1280)
CAMERAS = (("Lumen", "Lumen P4"), ("Kestrel", "KX 20 Pro"))
DRAWN = 448  # the short side that is drawn in full
SUBFOLDER = "Camera Roll"


@dataclass(frozen=True)
class Frame:
    """One file to be written: the shot, its shape and its hour."""

    shot: Shot
    size: tuple[int, int]
    when: datetime
    turn: int  # EXIF orientation
    kind: str
    seed: int


def shoot(seed: int, photos: int, out_dir: Path | str, *, truth: bool = False) -> list[tuple[str, str]]:
    """Fill `out_dir` with `photos` files; returns (name, kind) in order.

    Kinds: photo, occluded, burst, duplicate, stranger, corrupt.  `truth` also
    writes the list to truth.json beside the photos.
    """
    if photos < 1:
        raise ValueError("photos must be at least 1")
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([int(seed), 9091])
    frames, copies, corrupt = _plan(int(seed), photos, rng)
    manifest: list[tuple[str, str]] = []
    drawn: list[tuple[Frame, U8]] = []
    number = int(rng.integers(1000, 7000))
    for i, frame in enumerate(frames):
        pixels = _picture(frame)
        drawn.append((frame, pixels))
        name = f"IMG_{number + i:04d}.jpg"
        if i % 3 == 2:
            name = f"{SUBFOLDER}/{name}"
        _write(out / name, jpeg(pixels, frame, rng))
        manifest.append((name, frame.kind))
    own = [d for d in drawn if d[0].kind in ("photo", "occluded")]
    for i in range(copies):
        frame, pixels = own[int(rng.integers(len(own)))]
        name = f"IMG-WA{number % 100:02d}{i:02d}.jpg"
        _write(out / name, jpeg(_altered(pixels, rng), frame, rng, quality=62))
        manifest.append((name, "duplicate"))
    if corrupt:
        whole = jpeg(drawn[0][1], drawn[0][0], rng)
        name = f"IMG_{number + len(frames):04d}.jpg"
        # cut inside the camera data, before any pixel
        _write(out / name, whole[:180])
        manifest.append((name, "corrupt"))
    if truth:
        (out / "truth.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return manifest


def _picture(frame: Frame) -> U8:
    """The upright pixels of a frame; beyond DRAWN they are enlarged."""
    ratio = min(1.0, DRAWN / min(frame.size))
    small = (round(frame.size[0] * ratio), round(frame.size[1] * ratio))
    image = Image.fromarray(render(Person.from_seed(frame.seed), frame.shot, small).image)
    return np.asarray(image if ratio == 1.0 else image.resize(frame.size, Image.Resampling.LANCZOS))


def _plan(seed: int, photos: int, rng: np.random.Generator) -> tuple[list[Frame], int, bool]:
    """The frames of a folder, how many copies follow and whether one is damaged."""
    corrupt = photos >= 6
    copies = 0 if photos < 8 else max(2, round(photos * 0.08))
    strangers = 2 if photos >= 10 else 0
    burst = 4 if photos >= 12 else 0
    plain = photos - corrupt - copies - strangers - burst
    start = datetime(2021, 3, 1) + timedelta(minutes=int(rng.integers(0, 2 * 365 * 24 * 60)))
    frames: list[Frame] = []
    for i in range(plain):
        hidden = i % 5 == 4
        shot = _varied(i, Shot.sample(rng, stress=hidden))
        if hidden and not shot.accessories:
            shot = replace(shot, sunglasses=True)
        frames.append(_frame(shot, rng, start, "occluded" if hidden else "photo", seed))
    for _ in range(strangers):
        frames.append(_frame(Shot.sample(rng), rng, start, "stranger", seed + 500_009))
    frames.sort(key=lambda f: f.when)
    if burst:
        first = _frame(Shot.portrait(rng), rng, start, "burst", seed)
        for i in range(burst):
            turned = replace(
                first.shot,
                yaw_deg=first.shot.yaw_deg + float(rng.normal(0, 0.8)),
                pitch_deg=first.shot.pitch_deg + float(rng.normal(0, 0.6)),
            )
            frames.append(replace(first, shot=turned, when=first.when + timedelta(seconds=i // 2)))
    return frames, copies, corrupt


def _varied(i: int, shot: Shot) -> Shot:
    """Walk through expressions, lights and scenes, so that a folder has them all."""
    return replace(
        shot,
        expression=EXPRESSIONS[(2 * i + 1) % len(EXPRESSIONS)],
        light=LIGHTS[i % len(LIGHTS)] if i % 2 else shot.light,
        scene=SCENES[(3 * i) % len(SCENES)],
    )


def _frame(shot: Shot, rng: np.random.Generator, start: datetime, kind: str, seed: int) -> Frame:
    across, down = ASPECTS[int(rng.choice(len(ASPECTS), p=[0.45, 0.2, 0.2, 0.15]))]
    long = int(rng.choice(LONG_SIDES))
    unit = long / max(across, down)
    size = (round(across * unit / 2) * 2, round(down * unit / 2) * 2)
    when = start + timedelta(days=int(rng.integers(0, 45)), seconds=int(rng.integers(8 * 3600, 21 * 3600)))
    turn = int(rng.choice([1, 3, 6, 8], p=[0.52, 0.10, 0.26, 0.12]))
    return Frame(shot, size, when, turn, kind, seed)


def stored(upright: U8, turn: int) -> U8:
    """Pixels as a camera stores them under an EXIF orientation."""
    quarter = {1: 0, 3: 2, 6: 1, 8: 3}[turn]
    return np.ascontiguousarray(np.rot90(upright, quarter))


def _altered(pixels: U8, rng: np.random.Generator) -> U8:
    """A slight crop and a smaller size, as a messenger would send it."""
    h, w = pixels.shape[:2]
    edge = int(rng.integers(0, 4))
    cut = pixels[edge : h - edge, edge : w - edge]
    scale = float(rng.uniform(0.6, 0.95))
    small = Image.fromarray(cut).resize((round(w * scale), round(h * scale)), Image.Resampling.BICUBIC)
    return np.asarray(small)


def _degrees(value: float) -> tuple[TiffImagePlugin.IFDRational, ...]:
    whole = int(abs(value))
    minutes = (abs(value) - whole) * 60
    seconds = round((minutes - int(minutes)) * 60 * 100)
    return (
        TiffImagePlugin.IFDRational(whole, 1),
        TiffImagePlugin.IFDRational(int(minutes), 1),
        TiffImagePlugin.IFDRational(seconds, 100),
    )


def jpeg(upright: U8, frame: Frame, rng: np.random.Generator, quality: int = 88) -> bytes:
    """An encoded photo with camera, time, place and orientation."""
    exif = Image.Exif()
    make, model = CAMERAS[frame.seed % len(CAMERAS)]
    stamp = frame.when.strftime("%Y:%m:%d %H:%M:%S")
    exif[0x010F], exif[0x0110], exif[0x0132] = make, model, stamp
    exif[0x0112] = frame.turn
    camera = exif.get_ifd(0x8769)
    camera[0x9003] = camera[0x9004] = stamp
    camera[0x829A] = TiffImagePlugin.IFDRational(1, int(rng.choice([30, 60, 120, 250])))
    place = exif.get_ifd(0x8825)
    # open sea: nobody lives there
    lat, lon = -47.0 + float(rng.normal(0, 0.05)), -124.0 + float(rng.normal(0, 0.05))
    place[1], place[2] = "S", _degrees(lat)
    place[3], place[4] = "W", _degrees(lon)
    buffer = io.BytesIO()
    Image.fromarray(stored(upright, frame.turn)).save(buffer, "JPEG", quality=quality, exif=exif)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
