"""Circumstances of one rendered photograph.

In: a random generator.  Out: a frozen `Shot` (pose, expression, light, place,
framing, clothes, accessories) and its descriptive words.  It does not know
who stands in front of the camera nor how anything is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RGB = tuple[float, float, float]

EXPRESSIONS = ("neutral", "smile", "laugh", "surprised", "serious")
LIGHTS = ("studio", "daylight", "side", "warm", "backlit", "dim")
SCENES = ("studio", "office", "park", "street", "beach", "room", "night")
FRAMINGS = ("close-up", "head and shoulders", "half length")
ACCESSORIES = ("glasses", "sunglasses", "scarf", "hat", "mask", "hand")
CLOTHES: dict[str, RGB] = {
    "black": (34, 34, 38),
    "white": (226, 224, 220),
    "gray": (120, 122, 126),
    "navy": (34, 46, 84),
    "blue": (62, 104, 168),
    "red": (166, 44, 46),
    "green": (52, 104, 72),
    "yellow": (212, 172, 70),
    "beige": (196, 174, 142),
    "purple": (98, 64, 124),
}


@dataclass(frozen=True)
class Shot:
    """Everything about a photograph that is not the person."""

    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0
    expression: str = "neutral"
    light: str = "studio"
    scene: str = "studio"
    framing: str = "head and shoulders"
    clothing: str = "gray"
    clothing_rgb: RGB = (120.0, 122.0, 126.0)
    glasses: bool = False
    sunglasses: bool = False
    scarf: bool = False
    hat: bool = False
    mask: bool = False
    hand: bool = False
    seed: int = 0

    @classmethod
    def sample(cls, rng: np.random.Generator, *, stress: bool = False) -> Shot:
        """A shot of everyday variety, or a hard one under `stress`."""
        yaw, pitch = _pose(rng, stress)
        word, rgb = _clothing(rng)
        return cls(
            yaw_deg=yaw,
            pitch_deg=pitch,
            roll_deg=float(np.clip(rng.normal(0, 5), -14, 14)),
            expression=_pick(rng, EXPRESSIONS, (0.34, 0.3, 0.12, 0.06, 0.18)),
            light=_pick(
                rng,
                LIGHTS,
                (0.08, 0.1, 0.22, 0.15, 0.25, 0.2) if stress else (0.24, 0.32, 0.15, 0.15, 0.07, 0.07),
            ),
            scene=_pick(rng, SCENES, (0.16, 0.16, 0.16, 0.16, 0.12, 0.14, 0.1)),
            framing=_pick(rng, FRAMINGS, (0.2, 0.3, 0.5) if stress else (0.22, 0.66, 0.12)),
            clothing=word,
            clothing_rgb=rgb,
            seed=int(rng.integers(1 << 31)),
            **_accessories(rng, stress),
        )

    @classmethod
    def portrait(cls, rng: np.random.Generator) -> Shot:
        """An easy shot: near-frontal, well lit, nothing in the way."""
        word, rgb = _clothing(rng)
        return cls(
            yaw_deg=float(rng.uniform(-9, 9)),
            pitch_deg=float(rng.uniform(-4, 4)),
            roll_deg=float(rng.uniform(-3, 3)),
            expression=_pick(rng, EXPRESSIONS, (0.6, 0.4, 0.0, 0.0, 0.0)),
            light=_pick(rng, LIGHTS, (0.6, 0.4, 0.0, 0.0, 0.0, 0.0)),
            scene=_pick(rng, SCENES, (0.4, 0.2, 0.15, 0.05, 0.05, 0.15, 0.0)),
            clothing=word,
            clothing_rgb=rgb,
            seed=int(rng.integers(1 << 31)),
        )

    @property
    def view(self) -> str:
        """frontal, three-quarter or profile."""
        turn = abs(self.yaw_deg)
        return "frontal" if turn < 18 else "three-quarter" if turn < 58 else "profile"

    @property
    def accessories(self) -> tuple[str, ...]:
        """The accessories present, in a fixed order."""
        return tuple(name for name in ACCESSORIES if getattr(self, name))

    @property
    def descriptors(self) -> dict[str, str]:
        """Plain words for captions."""
        return {
            "view": self.view,
            "expression": self.expression,
            "light": self.light,
            "scene": self.scene,
            "framing": self.framing,
            "clothing": self.clothing,
            "accessories": ", ".join(self.accessories) or "none",
        }


def _pick(rng: np.random.Generator, words: tuple[str, ...], p: tuple[float, ...]) -> str:
    return str(rng.choice(np.array(words), p=np.array(p) / sum(p)))


def _clothing(rng: np.random.Generator) -> tuple[str, RGB]:
    word = str(rng.choice(list(CLOTHES)))
    r, g, b = np.clip(np.array(CLOTHES[word]) * rng.uniform(0.85, 1.12) + rng.normal(0, 4, 3), 12, 235)
    return word, (float(r), float(g), float(b))


def _pose(rng: np.random.Generator, stress: bool) -> tuple[float, float]:
    full = rng.random() < (0.3 if stress else 0.06)
    yaw = rng.choice([-1, 1]) * rng.uniform(60, 92) if full else np.clip(rng.normal(0, 20), -52, 52)
    return float(yaw), float(np.clip(rng.normal(0, 9 if stress else 6), -24, 24))


def _accessories(rng: np.random.Generator, stress: bool) -> dict[str, bool]:
    draw = rng.random(6)
    odds = (0.2, 0.22, 0.2, 0.25, 0.2, 0.25) if stress else (0.2, 0.02, 0.04, 0.03, 0.004, 0.01)
    worn = {name: bool(d < o) for name, d, o in zip(ACCESSORIES, draw, odds, strict=False)}
    if worn["sunglasses"]:
        worn["glasses"] = False
    if worn["mask"]:
        worn["hand"] = False
    return worn
