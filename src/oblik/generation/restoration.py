"""Face restoration after the picture is made: a little of a restorer's face, blended into the picture's own.

In: a picture, its landmarks, a `Restorer`. Out: the picture with at most a fifth of the restored face in it;
pixels off the face are untouched. It is off unless asked for: restorers draw the face that they know, so
likeness is measured before and after by whoever calls. Knows nothing of likeness and records.

GFPGAN: Wang et al. 2021; CodeFormer: Zhou et al. 2022. Both see faces of 512 px aligned as FFHQ is.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from oblik.errors import InvalidInput, NotFound
from oblik.faces.align import inverse, similarity, warp
from oblik.faces.masks import face_mask
from oblik.faces.stack import Image_HW3, Points_52
from oblik.registry import load

MOST_WEIGHT = 0.2
FACE_PX = 512
FFHQ_52: Points_52 = np.array(
    [[192.98, 239.95], [318.90, 240.19], [256.63, 314.02], [201.26, 371.41], [313.09, 371.15]], np.float32
)
"""Where eyes, nose tip and mouth corners lie in the crop that both restorers were trained with."""


class Restorer(Protocol):
    """Draws a face of `FACE_PX` pixels anew; the same face gives the same result."""

    def __call__(self, face_HW3: Image_HW3, /) -> Image_HW3:
        """The restored face, of the same shape."""
        ...


@dataclass(frozen=True)
class Network:
    """A restorer that is known: who wrote it may say what it is used for."""

    licence: str
    commercial_use: bool


NETWORKS = {
    "gfpgan": Network("Apache-2.0", True),
    "codeformer": Network("S-Lab-License-1.0", False),
}
BACKENDS = dict.fromkeys(NETWORKS, "oblik.generation.backends.restorers:SpandrelRestorer")
EXTRAS = dict.fromkeys(NETWORKS, "restore")


def open_restorer(
    name: str, weights: Path, *, device: str = "auto", accepted: Collection[str] = ()
) -> Restorer:
    """Open a restorer with the weights that a person has.

    Raises:
        InvalidInput: its licence forbids commercial use and was not accepted by name, or the file holds
            another network.
        NotFound: there is no such file, or no such network.
        BackendUnavailable: the extra is not installed.
    """
    network = NETWORKS.get(name)
    if network and not network.commercial_use and network.licence not in accepted:
        raise InvalidInput(
            f"{name} is for non-commercial use only ({network.licence})",
            hint=f"oblik restore ... --accept-licence {network.licence}",
        )
    if not weights.is_file():
        raise NotFound(f"there are no weights at {weights}", hint="oblik restore --help")
    restorer: Restorer = load("restorer", name, BACKENDS, EXTRAS)(name, weights, device)
    return restorer


def restored(image_HW3: Image_HW3, landmarks: Points_52, restorer: Restorer, weight: float) -> Image_HW3:
    """Blend ``weight`` of the restored face into the picture, feathered, on the face alone.

    Raises InvalidInput for a weight outside 0..0.2.
    """
    if not 0 < weight <= MOST_WEIGHT:
        raise InvalidInput(f"weight {weight:g} is not above 0 and at most {MOST_WEIGHT}", hint="--weight 0.1")
    height, width = image_HW3.shape[:2]
    to_crop = similarity(landmarks, FFHQ_52)
    drawn_HW3 = restorer(warp(image_HW3, to_crop, FACE_PX, FACE_PX))
    back_HW3 = warp(drawn_HW3, inverse(to_crop), width, height).astype(np.float64)
    share_HW1 = weight / 255 * face_mask(landmarks, width, height)[..., None].astype(np.float64)
    return np.asarray(np.rint(image_HW3 + share_HW1 * (back_HW3 - image_HW3)), np.uint8)
