"""How fast a threshold is found from 10,000 faces, in how much memory, and whether it is the true one.

Made-up unit embeddings of 1,000 people, ten photos each, 512 dimensions. Two things are timed, both with the
code of the product: the calibration of a persona on all of them (threshold, nearest, bootstrap over people:
`oblik.likeness.calibration`), and every pair of them (`oblik.likeness.separation`). Goals: both together
under 15 s and under 500 MB above what the imports take; on a subset of 1,000 faces the threshold of all pairs
within 1e-6 of the one worked out naively in float64, and exactly as many pairs above it. Prints a table, then
one JSON line; exit status 0 when all goals are met. ``--quick`` takes 2,000 faces.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

import numpy as np

from oblik.likeness.calibration import calibrate
from oblik.likeness.pairs import Embeddings_ND, Impostors, unit
from oblik.likeness.roc import threshold_at
from oblik.likeness.separation import separate

DIMENSIONS, PHOTOS, NOISE = 512, 10, 0.7
REFERENCES, SUBSET, FMR = 20, 1000, 0.01
MOST_S, MOST_MB, TOLERANCE = 15.0, 500.0, 1e-6


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--quick", action="store_true", help="2,000 faces instead of 10,000")
    faces = 2000 if words.parse_args().quick else 10_000
    rng = np.random.default_rng(0)
    before_mb = peak_mb()
    embeddings_ND, references_ND = clouds(faces // PHOTOS, PHOTOS, rng), clouds(1, REFERENCES, rng)
    whose_N = np.repeat(np.arange(faces // PHOTOS), PHOTOS)

    began_s = time.perf_counter()
    found = calibrate(Impostors(embeddings_ND, whose_N), references_ND, fmr=FMR, rng=rng)
    calibrate_s = time.perf_counter() - began_s
    began_s = time.perf_counter()
    apart = separate(embeddings_ND, whose_N, fmr=FMR)
    separate_s = time.perf_counter() - began_s
    used_mb = peak_mb() - before_mb

    some = rng.permutation(faces)[:SUBSET]
    off, uncounted = against_naive(embeddings_ND[some], whose_N[some])
    seconds = calibrate_s + separate_s
    rows = [
        ("persona on all faces", f"{calibrate_s:.2f} s", f"{found.impostor_scores:,} scores, threshold "
         f"{found.threshold:.4f} [{found.threshold_low:.4f}, {found.threshold_high:.4f}]"),
        ("every pair", f"{separate_s:.2f} s", apart.sentence),
        ("together", f"{seconds:.2f} s", f"goal {MOST_S:.0f} s"),
        ("peak memory", f"{used_mb:.0f} MB", f"over imports, goal {MOST_MB:.0f} MB"),
        (f"naive, {SUBSET:,} faces", f"{off:.1e}", f"threshold off by; {uncounted} pairs counted otherwise"),
    ]  # fmt: skip
    for name, figure, more in rows:
        print(f"{name:<22} {figure:>10}  {more}")
    goals = {
        "time": seconds < MOST_S,
        "memory": used_mb < MOST_MB,
        "exact": off <= TOLERANCE and uncounted == 0,
    }
    figures = {
        "faces": faces, "pairs": apart.impostor_pairs + apart.genuine_pairs, "seconds": round(seconds, 3),
        "calibrate_s": round(calibrate_s, 3), "all_pairs_s": round(separate_s, 3),
        "peak_mb": round(used_mb, 1), "threshold_off": off, "pairs_counted_otherwise": uncounted,
    }  # fmt: skip
    print(json.dumps({"name": "calibration", "figures": figures, "goals": goals, "ok": all(goals.values())}))
    return 0 if all(goals.values()) else 1


def clouds(people: int, photos: int, rng: np.random.Generator) -> Embeddings_ND:
    """Each person a direction, each photo a noisy copy of it."""
    identity = rng.standard_normal((people, 1, DIMENSIONS), np.float32)
    noise = rng.standard_normal((people, photos, DIMENSIONS), np.float32)
    return unit((identity + NOISE * noise).reshape(-1, DIMENSIONS))


def against_naive(
    faces_ND: Embeddings_ND, whose_N: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> tuple[float, int]:
    """How far the threshold is off, and how many more or fewer pairs reach it than reach the naive one."""
    exact_NN = faces_ND.astype(np.float64) @ faces_ND.astype(np.float64).T
    upper = np.triu_indices(len(faces_ND), k=1)
    strangers = whose_N[upper[0]] != whose_N[upper[1]]
    scores_P = exact_NN[upper][strangers]
    naive, found = threshold_at(scores_P, FMR), separate(faces_ND, whose_N, fmr=FMR).threshold
    edge = TOLERANCE / 2
    return abs(found - naive), abs(
        int((scores_P >= found + edge).sum()) - int((scores_P >= naive + edge).sum())
    )


def peak_mb() -> float:
    """The most memory that this process has held, in MB."""
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    sys.exit(main())
