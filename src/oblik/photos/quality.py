"""Numbers about one face in one photo, and the plain words that follow from them.

In: an RGB image and a detected face. Out: a `Quality` (sharpness, exposure, size, pose) and the words
for captions and coverage (view, side, light). Knows nothing of who it is, nor of thresholds between
personas. Pose comes from five landmarks alone: good enough to tell a profile, not to measure degrees.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from oblik.faces.stack import Face, Image_HW3, Points_52

FACE_PX, STEP = 96, 3
EYES_M, FRAME_MM = 0.063, 43.27
NOSE_AT, NOSE_OUT, TILTED_DEG = 0.51, 0.53, 16.0
FULL_LENGTH, HALF_LENGTH, BUST = 17.0, 7.0, 3.2
NOSE_DEPTH = 0.95
FRONTAL_DEG, PROFILE_DEG = 18.0, 58.0
DARK, BRIGHT = 0.16, 0.85
DIM, GLARE, BACKLIT, WARM, SIDE = 0.57, 0.86, 0.35, 1.15, 0.14
TILES = 8


@dataclass(frozen=True)
class Quality:
    """``unit_px`` is the distance between the eyes of a frontal view of this size, in photo pixels;
    ``face_share`` that distance over the short side; luminances are 0..1; ``clipped`` is the share of
    face pixels that are black or white; ``side_light`` is 0 (even) to 1 (half the face is black);
    ``backlight`` is background minus face; ``highlight`` the 95th percentile; ``warmth`` the red over
    blue that nine of ten places of the photo reach: light colours them all, clothes only some;
    ``distance_m`` is 0 where the camera did not say its focal length; ``texture`` is the fine detail of
    cheeks and forehead over that of the whole face; ``saturation`` that of the face, 0..1; ``tones`` the
    effective share of grey levels in use; ``below`` how far the photo goes on below the eyes, in units."""

    unit_px: float
    face_share: float
    sharpness: float
    luminance: float
    contrast: float
    clipped: float
    side_light: float
    backlight: float
    highlight: float
    warmth: float
    yaw_deg: float
    roll_deg: float
    detector_score: float
    distance_m: float = 0.0
    texture: float = 0.3
    saturation: float = 0.4
    tones: float = 0.8
    pitch_deg: float = 0.0
    below: float = 4.0

    def numbers(self) -> dict[str, float]:
        """Rounded, for a manifest."""
        return {name: round(float(value), 4) for name, value in asdict(self).items()}


def measure(image: Image_HW3, face: Face, *, scale: float = 1.0, focal_35mm: float = 0.0) -> Quality:
    """Measure one face. ``scale`` is photo pixels per pixel of ``image`` when that is a reduced copy;
    ``focal_35mm`` the focal length on a 36 x 24 mm frame, when the camera said it.

    The distance follows from that and from 63 mm between the eyes (Dodgson 2004, the mean of adults).
    """
    unit = face_unit(face.landmarks)
    luma = _luma(image)
    patch = _patch(luma, face.landmarks, unit)
    some = luma[::STEP, ::STEP]
    background = float(np.median(np.concatenate([some[: max(1, some.shape[0] // 8)].ravel(), _rims(some)])))
    left, right = patch[:, : FACE_PX // 2].mean(), patch[:, FACE_PX // 2 :].mean()
    focal_px = focal_35mm / FRAME_MM * float(np.hypot(*image.shape[:2]))
    saturation, tones = _colour(image, face.landmarks, unit)
    return Quality(
        unit_px=unit * scale,
        face_share=unit / min(image.shape[:2]),
        sharpness=sharpness(patch),
        luminance=float(patch.mean()),
        contrast=float(patch.std()),
        clipped=float(((patch < 0.02) | (patch > 0.98)).mean()),
        side_light=float(abs(left - right) / max(left + right, 1e-6)),
        backlight=background - float(patch.mean()),
        highlight=float(np.percentile(some, 95)),
        warmth=_warmth(image),
        yaw_deg=yaw_deg(face.landmarks),
        roll_deg=roll_deg(face.landmarks),
        detector_score=float(face.score),
        distance_m=EYES_M * focal_px / unit,
        texture=_texture(patch),
        saturation=saturation,
        tones=tones,
        pitch_deg=pitch_deg(face.landmarks),
        below=(image.shape[0] - float(face.landmarks[:2, 1].mean())) / unit,
    )


def sharpness(patch: NDArray[np.float32]) -> float:
    """Variance of the Laplacian over the variance of the patch, both of a face resampled to one size.

    Pech-Pacheco et al. 2000; the division makes dim and contrasty faces comparable. x 1000.
    """
    smooth = cv2.GaussianBlur(patch, (3, 3), 0.6)
    laplacian = cv2.Laplacian(smooth, cv2.CV_32F)
    return float(1000.0 * laplacian.var() / max(float(patch.var()), 1e-4))


def face_unit(landmarks: Points_52) -> float:
    """The larger of the eye distance and 0.93 of eyes to mouth: turning the head shortens only the first."""
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    across = float(np.linalg.norm(landmarks[1] - landmarks[0]))
    return max(across, 0.93 * float(np.linalg.norm(mouth - eyes)), 1e-3)


def yaw_deg(landmarks: Points_52) -> float:
    """Turn of the head; negative when the nose points to the left of the image.

    With eyes at +-a and the nose tip n before their plane, a yaw t puts the nose n sin t beside the
    middle of eyes that span 2 a cos t: tan t = (a / n) (2 offset / span).
    """
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    down = mouth - eyes
    down = down / max(float(np.linalg.norm(down)), 1e-6)
    right = np.array([down[1], -down[0]])
    middle = (eyes + mouth) / 2
    offset = float((landmarks[2] - middle) @ right)
    span = float((landmarks[1] - landmarks[0]) @ right)
    return float(np.degrees(np.arctan2(2 * NOSE_DEPTH * offset, max(span, 1e-3))))


def pitch_deg(landmarks: Points_52) -> float:
    """Nod of the head, roughly: positive when the face looks up and the nose rises towards the eyes.

    People differ in the length of their noses: plus or minus 8 degrees is nothing.
    """
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    down = mouth - eyes
    along = float((landmarks[2] - eyes) @ down) / max(float(down @ down), 1e-6)
    return float(np.degrees(np.arctan2(1.07 * (NOSE_AT - along), NOSE_OUT)))


def roll_deg(landmarks: Points_52) -> float:
    """Lean of the line from eyes to mouth; positive is clockwise."""
    down = landmarks[3:].mean(axis=0) - landmarks[:2].mean(axis=0)
    return float(np.degrees(np.arctan2(-down[0], down[1])))


def view_words(quality: Quality) -> dict[str, str]:
    """``view`` for the caption; for coverage only: ``side`` (where the nose points in the image), ``pitch``
    and ``shows`` (how much of the person the whole photo shows)."""
    turn = abs(quality.yaw_deg)
    view = "frontal" if turn < FRONTAL_DEG else "three-quarter" if turn < PROFILE_DEG else "profile"
    side = {} if view == "frontal" else {"side": "left" if quality.yaw_deg < 0 else "right"}
    nod = quality.pitch_deg if view == "frontal" else 0.0
    pitch = {"pitch": "up" if nod > 0 else "down"} if abs(nod) > TILTED_DEG else {}
    return {"view": view, **side, **pitch, "shows": shown(quality.below)}


def shown(below: float) -> str:
    """How much of a standing person a photo shows that goes on for ``below`` eye distances under the eyes."""
    if below > FULL_LENGTH:
        return "full length"
    return "half length" if below > HALF_LENGTH else "head and shoulders" if below > BUST else "face"


def light_words(quality: Quality) -> dict[str, str]:
    """``light`` where the numbers leave no doubt, otherwise nothing."""
    if quality.highlight < DIM:
        return {"light": "dim"}
    if quality.highlight > GLARE and quality.backlight > BACKLIT:
        return {"light": "backlit"}
    if quality.warmth > WARM:
        return {"light": "warm"}
    if quality.side_light > SIDE and abs(quality.yaw_deg) < 30:
        return {"light": "side"}
    return {}


def hardness(quality: Quality) -> tuple[float, str]:
    """How hard this photo is for a face network, 0 or more, and the first cause; 0 is an ordinary one."""
    causes = [
        ((abs(quality.yaw_deg) - PROFILE_DEG) / 20 + 0.5, "profile"),
        ((0.85 - quality.detector_score) * 3, "partly covered or unclear face"),
        ((DARK - quality.luminance) * 8, "very dark"),
        ((quality.luminance - BRIGHT) * 8, "very bright"),
        ((quality.side_light - 0.35) * 4, "hard side light"),
        ((quality.backlight - 0.5) * 4, "strong light from behind"),
        ((0.06 - quality.face_share) * 20, "far away"),
    ]
    worst, cause = max(causes)
    return (round(worst, 4), cause) if worst > 0 else (0.0, "")


def _luma(image: Image_HW3) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.float32) / 255.0


def _patch(luma: NDArray[np.float32], landmarks: Points_52, unit: float) -> NDArray[np.float32]:
    """The face, 2.4 units square around the middle of the landmarks, as FACE_PX square."""
    centre = (landmarks[:2].mean(axis=0) + landmarks[3:].mean(axis=0)) / 2
    half = 1.2 * unit
    height, width = luma.shape
    left, top = int(np.clip(centre[0] - half, 0, width - 2)), int(np.clip(centre[1] - half, 0, height - 2))
    right = int(np.clip(centre[0] + half, left + 2, width))
    bottom = int(np.clip(centre[1] + half, top + 2, height))
    face = luma[top:bottom, left:right]
    how = cv2.INTER_AREA if face.shape[0] > FACE_PX else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(face, (FACE_PX, FACE_PX), interpolation=how), dtype=np.float32)


def _texture(patch: NDArray[np.float32]) -> float:
    """Fine detail of both cheeks and the forehead (the median of the three) over that of the face."""
    fine = patch - cv2.GaussianBlur(patch, (0, 0), 1.2)
    skin = (fine[44:58, 26:36], fine[44:58, 60:70], fine[10:20, 40:56])
    return float(np.median([part.std() for part in skin]) / max(float(fine.std()), 1e-4))


def _colour(image: Image_HW3, landmarks: Points_52, unit: float) -> tuple[float, float]:
    """Mean saturation of the face, and exp(entropy) of its grey levels over their range."""
    centre = (landmarks[:2].mean(axis=0) + landmarks[3:].mean(axis=0)) / 2
    (left, top), (right, bottom) = (
        np.clip(centre + side * unit * 0.8, 0, (image.shape[1] - 1, image.shape[0] - 1)).astype(int)
        for side in (-1, 1)
    )
    face = np.ascontiguousarray(image[top : bottom + 1, left : right + 1])
    saturation = float(cv2.cvtColor(face, cv2.COLOR_RGB2HSV)[..., 1].mean() / 255)
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    low, high = np.percentile(grey, (2, 98)).astype(int)
    share = np.bincount(grey[(grey >= low) & (grey <= high)].ravel(), minlength=256) / max(1, grey.size)
    share = share[share > 0] / share.sum()
    levels = float(np.exp(-(share * np.log(share)).sum()))
    return saturation, min(1.0, levels / max(1, high - low + 1))


def _warmth(image: Image_HW3) -> float:
    tiles = cv2.resize(image, (TILES, TILES), interpolation=cv2.INTER_AREA).astype(np.float32)
    return float(np.quantile(tiles[..., 0] / np.maximum(tiles[..., 2], 1.0), 0.1))


def _rims(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    width, half = max(1, luma.shape[1] // 10), luma.shape[0] // 2
    return np.concatenate([luma[:half, :width].ravel(), luma[:half, -width:].ravel()])
