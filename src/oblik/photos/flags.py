"""What may be wrong with a photo, in words with the number behind them. Nothing is dropped for it.

In: a `Quality` and the size of the photo. Out: sentences for a person. Knows nothing of whom a photo shows.
"""

from __future__ import annotations

from oblik.photos.quality import Quality

FEW_FACE_PX = 60.0
SOFT = 25.0
DARK, BRIGHT, CLIPPED = 0.16, 0.85, 0.25
NEAR_M = 0.4
SMOOTH, SHARP_ENOUGH = 0.1, 45.0
VIVID, GREY = 0.72, 0.03
POSTER = 0.2


def flags_of(quality: Quality, *, short_side_px: int, wanted_px: int) -> tuple[str, ...]:
    """What a person should look at; empty for an ordinary photo of at least ``wanted_px``."""
    q = quality
    checks = [
        (
            short_side_px < wanted_px,
            f"a small picture (short side {short_side_px} px, {wanted_px} are better)",
        ),
        (
            q.unit_px < FEW_FACE_PX,
            f"a small face ({q.unit_px:.0f} px between the eyes, {FEW_FACE_PX:.0f} are better)",
        ),
        (q.sharpness < SOFT, f"soft (sharpness {q.sharpness:.0f}, below {SOFT:.0f})"),
        (q.luminance < DARK, f"a dark face (brightness {q.luminance:.2f}, below {DARK:.2f})"),
        (q.luminance > BRIGHT, f"a very bright face (brightness {q.luminance:.2f}, above {BRIGHT:.2f})"),
        (q.clipped > CLIPPED, f"{q.clipped:.0%} of the face is pure black or white (at most {CLIPPED:.0%})"),
        (
            0 < q.distance_m < NEAR_M,
            f"taken from {100 * q.distance_m:.0f} cm: noses look larger from under {100 * NEAR_M:.0f} cm",
        ),
        (
            q.texture < SMOOTH and q.sharpness > SHARP_ENOUGH,
            f"smooth skin, sharp edges, perhaps retouched (texture {q.texture:.2f}, below {SMOOTH:.2f})",
        ),
        (
            q.saturation > VIVID,
            f"strong colours, perhaps a filter (saturation {q.saturation:.2f}, above {VIVID:.2f})",
        ),
        (q.saturation < GREY, f"black and white (saturation {q.saturation:.2f}, below {GREY:.2f})"),
        (
            q.tones < POSTER,
            f"few tones, perhaps a filter ({q.tones:.0%} of the levels are used, {POSTER:.0%} are usual)",
        ),
    ]
    return tuple(sentence for wrong, sentence in checks if wrong)
