"""Identities of rendered people who do not exist.

In: an integer seed.  Out: a frozen `Person` with every identity parameter and
a few descriptive words.  It does not know how a person is drawn, nor anything
about cameras, light or clothes.

Lengths are in decimetres (the head is about 2.3 units high), colours are
linear RGB in 0..1, and most shape fields are offsets around an average face.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

RGB = tuple[float, float, float]

SKINS: dict[str, RGB] = {
    "fair": (228, 182, 158),
    "tan": (200, 148, 114),
    "brown": (152, 101, 72),
    "dark": (98, 64, 47),
}
HAIRS: dict[str, RGB] = {
    "black": (26, 22, 21),
    "brown": (84, 54, 35),
    "blond": (196, 156, 98),
    "red": (142, 66, 32),
    "gray": (158, 155, 151),
}
EYES: dict[str, RGB] = {
    "blue": (88, 122, 160),
    "green": (92, 116, 78),
    "brown": (74, 44, 26),
    "gray": (118, 126, 130),
}


def linear(rgb: RGB) -> RGB:
    """Linear light of an 0..255 sRGB triple."""
    r, g, b = (((c / 255.0 + 0.055) / 1.055) ** 2.4 for c in rgb)
    return (r, g, b)


@dataclass(frozen=True)
class Person:
    """All that makes one rendered person recognisable."""

    seed: int
    gender: str
    age: float
    skin: str
    skin_rgb: RGB
    redness: float
    eyes: str
    eye_rgb: RGB
    hair_color: str
    hair_rgb: RGB
    hair_style: str
    hair_volume: float
    hair_length: float
    hairline: float
    recede: float
    fringe: float
    parting: float
    beard: str
    beard_shape: float
    head_w: float
    face_l: float
    jaw_w: float
    jaw_h: float
    chin_w: float
    chin_out: float
    cheekbone: float
    cheek_full: float
    slope: float
    brow_ridge: float
    eye_gap: float
    eye_size: float
    eye_tilt: float
    eye_open: float
    eye_deep: float
    lid_fold: float
    brow_y: float
    brow_angle: float
    brow_arch: float
    brow_thick: float
    brow_dark: float
    nose_l: float
    nose_w: float
    nose_out: float
    bridge_w: float
    nose_hump: float
    nose_tip: float
    mouth_w: float
    lip_up: float
    lip_low: float
    mouth_y: float
    mouth_curve: float
    lip_red: float
    ear_out: float
    ear_size: float
    neck_w: float
    shoulder_w: float
    asym: tuple[float, float, float]
    freckles: float
    wrinkles: float
    moles: tuple[tuple[float, float, float], ...]

    @classmethod
    def from_seed(cls, seed: int) -> Person:
        """The person of a seed, always the same."""
        rng = np.random.default_rng([int(seed), 7331])
        gender = "man" if rng.random() < 0.5 else "woman"
        age = float(
            rng.choice([rng.uniform(19, 36), rng.uniform(36, 57), rng.uniform(57, 78)], p=[0.46, 0.32, 0.22])
        )
        return cls(
            seed=int(seed),
            gender=gender,
            age=age,
            **_colouring(rng, age),
            **_hair(rng, gender, age),
            **_face(rng, gender, age),
        )

    @property
    def descriptors(self) -> dict[str, str]:
        """Plain words for captions."""
        age = "young" if self.age < 36 else "middle-aged" if self.age < 57 else "old"
        return {
            "gender": self.gender,
            "age": age,
            "skin": self.skin,
            "hair_color": self.hair_color,
            "hair_style": self.hair_style,
            "beard": self.beard,
            "eyes": self.eyes,
        }


def _bell(rng: np.random.Generator, scale: float, mean: float = 0.0) -> float:
    """A normal draw cut at two and a bit deviations."""
    return float(mean + scale * np.clip(rng.normal(), -2.2, 2.2))


def _shade(rng: np.random.Generator, rgb: RGB, spread: float) -> RGB:
    """A colour near `rgb`: brightness and tint vary, hue barely."""
    gain = np.exp(_bell(rng, spread))
    tint = np.exp(rng.normal(size=3) * spread * 0.28)
    r, g, b = np.array(linear(rgb)) * gain * tint
    return (float(r), float(g), float(b))


def _colouring(rng: np.random.Generator, age: float) -> dict[str, Any]:
    skin = str(rng.choice(list(SKINS), p=[0.36, 0.26, 0.21, 0.17]))
    hair_p = {
        "fair": [0.14, 0.40, 0.30, 0.16, 0.0],
        "tan": [0.42, 0.46, 0.09, 0.03, 0.0],
        "brown": [0.74, 0.26, 0.0, 0.0, 0.0],
        "dark": [0.9, 0.1, 0.0, 0.0, 0.0],
    }[skin]
    hair = str(rng.choice(list(HAIRS), p=hair_p))
    if rng.random() < np.clip((age - 44) / 28, 0, 0.85):
        hair = "gray"
    eye_p = {
        "fair": [0.36, 0.2, 0.26, 0.18],
        "tan": [0.1, 0.16, 0.68, 0.06],
        "brown": [0.01, 0.05, 0.93, 0.01],
        "dark": [0.0, 0.0, 1.0, 0.0],
    }[skin]
    eyes = str(rng.choice(list(EYES), p=eye_p))
    return {
        "skin": skin,
        "skin_rgb": _shade(rng, SKINS[skin], 0.11),
        "eyes": eyes,
        "redness": float(rng.uniform(0.3, 1.0)),
        "eye_rgb": _shade(rng, EYES[eyes], 0.2),
        "hair_color": hair,
        "hair_rgb": _shade(rng, HAIRS[hair], 0.2 if hair != "gray" else 0.12),
    }


def _hair(rng: np.random.Generator, gender: str, age: float) -> dict[str, Any]:
    if gender == "man":
        style = str(
            rng.choice(
                ["short", "curly", "bald", "long"],
                p=[0.62, 0.14, 0.19, 0.05] if age > 36 else [0.68, 0.2, 0.05, 0.07],
            )
        )
        beard = str(rng.choice(["none", "stubble", "beard"], p=[0.5, 0.24, 0.26]))
    else:
        style = str(rng.choice(["long", "bob", "bun", "curly", "short"], p=[0.38, 0.2, 0.16, 0.16, 0.1]))
        beard = "none"
    fringe = rng.random() < (0.28 if gender == "woman" else 0.12)
    return {
        "hair_style": style,
        "beard": beard,
        "beard_shape": float(rng.uniform(0, 1)),
        "hair_volume": float(rng.uniform(0, 1)),
        "hair_length": float(rng.uniform(0, 1)),
        "hairline": _bell(rng, 0.035),
        "parting": float(rng.uniform(-1, 1)),
        "recede": float(rng.uniform(0, 0.13) * (age > 33) if gender == "man" else 0.0),
        "fringe": float(rng.uniform(0.6, 1.0)) if fringe and style != "bald" else 0.0,
    }


def _face(rng: np.random.Generator, gender: str, age: float) -> dict[str, Any]:
    man = 1.0 if gender == "man" else 0.0
    old = float(np.clip((age - 35) / 40, 0, 1))
    build = _bell(rng, 1.0)  # slim to round, shared by several measures
    size = _bell(rng, 1.0)  # robust to fine
    moles = tuple(
        (float(rng.uniform(-0.5, 0.5)), float(rng.uniform(-0.95, 0.4)), float(rng.uniform(0.012, 0.022)))
        for _ in range(rng.choice([0, 0, 1, 2, 3]))
    )
    return {
        "head_w": 0.010 * build + _bell(rng, 0.022, 0.005 * man),
        "face_l": _bell(rng, 0.05, 0.035 * man),
        "jaw_w": _bell(rng, 0.032, 0.045 * man - 0.02) + 0.015 * build,
        "jaw_h": _bell(rng, 0.04, -0.02 * man),
        "chin_w": _bell(rng, 0.032, 0.045 * man - 0.035),
        "chin_out": _bell(rng, 0.03, 0.02 * man),
        "cheekbone": _bell(rng, 0.022, 0.025),
        "cheek_full": 0.022 * build + _bell(rng, 0.018, 0.004 - 0.02 * old),
        "slope": _bell(rng, 0.025, 0.02 * man),
        "brow_ridge": _bell(rng, 0.012, 0.022 + 0.028 * man),
        "eye_gap": _bell(rng, 0.019),
        "eye_size": _bell(rng, 0.013, 0.006 * (1 - man)),
        "eye_tilt": _bell(rng, 0.06, 0.04 * (1 - man) - 0.04 * old),
        "eye_open": _bell(rng, 0.12, 0.06 * (1 - man) - 0.10 * old),
        "eye_deep": _bell(rng, 0.022, 0.012 * man + 0.015 * old),
        "lid_fold": float(rng.uniform(0, 1)),
        "brow_y": _bell(rng, 0.026, 0.018 * (1 - man)),
        "brow_angle": _bell(rng, 0.07),
        "brow_arch": _bell(rng, 0.02, 0.03 * (1 - man) + 0.018),
        "brow_thick": _bell(rng, 0.009, 0.030 + 0.010 * man),
        "brow_dark": float(rng.uniform(0.55, 1.0)),
        "nose_l": _bell(rng, 0.034, 0.01 * man + 0.015 * old),
        "nose_w": _bell(rng, 0.019, 0.010 * man) + 0.006 * size,
        "nose_out": _bell(rng, 0.034, 0.015 * man),
        "bridge_w": _bell(rng, 0.010, 0.005 * man),
        "nose_hump": _bell(rng, 0.018, 0.004),
        "nose_tip": _bell(rng, 0.022),
        "mouth_w": _bell(rng, 0.026, 0.012 * man),
        "lip_up": _bell(rng, 0.011, -0.008 * man - 0.010 * old),
        "lip_low": _bell(rng, 0.014, -0.006 * man - 0.012 * old),
        "mouth_y": _bell(rng, 0.022),
        "mouth_curve": _bell(rng, 0.014),
        "lip_red": float(rng.uniform(0.25, 1.0)) * (1.0 - 0.5 * man),
        "ear_out": _bell(rng, 0.04, 0.04),
        "ear_size": _bell(rng, 0.05, 0.05 * old),
        "neck_w": 0.02 * build + 0.055 * man + _bell(rng, 0.015),
        "shoulder_w": 0.2 * man + _bell(rng, 0.07),
        "asym": (_bell(rng, 0.006), _bell(rng, 0.008), _bell(rng, 0.008)),
        "freckles": float(max(0.0, rng.uniform(-1.6, 1.0))),
        "wrinkles": float(np.clip(old * rng.uniform(0.6, 1.3), 0, 1)),
        "moles": moles,
    }
