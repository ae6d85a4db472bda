"""Time the scoring of a full BraTS case, beside MedPy on the same masks.

    pip install '.[benchmark]'
    python scripts/benchmark_metrics.py [--reference SEG.nii.gz --prediction PRED.nii.gz]

Without files, two irregular nested lesions of a large tumour's size are made at 240x240x155.
Everything runs in one process; BLAS and OpenMP are held to one thread. MedPy is the yardstick only.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
from scipy import ndimage  # noqa: E402

from pixelnet_tf.config import StudyConfig  # noqa: E402
from pixelnet_tf.evaluation.protocols import BratsProtocol  # noqa: E402
from pixelnet_tf.evaluation.surface import REDUCERS  # noqa: E402
from pixelnet_tf.evaluation.tables import Table  # noqa: E402

try:
    from medpy.metric import binary as medpy
except ImportError:
    sys.exit("MedPy is not installed: pip install '.[benchmark]'")

SHAPE = (240, 240, 155)
REGIONS = StudyConfig().regions
#: All that the brats protocol computes; MedPy's names for the same.
MEDPY = {"Dice": medpy.dc, "Sensitivity": medpy.sensitivity, "Specificity": medpy.specificity,
         "Precision": medpy.precision}


def synthetic_labels(seed: int) -> np.ndarray:
    """Edema around enhancing around necrosis, with a ragged edge and a few far false positives."""
    rng = np.random.default_rng(seed)
    grid = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    centre = np.array([95, 120, 80]) + rng.normal(0, 1.5, 3)
    ragged = ndimage.zoom(rng.standard_normal((24, 24, 16)), (10, 10, 155 / 16), order=1)
    distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True))) + 4 * ragged
    labels = np.zeros(SHAPE, np.uint8)
    for radius, label in ((36, 2), (24, 4), (15, 1)):
        labels[distance < radius] = label
    for x, y, z in rng.integers((60, 60, 30), (180, 180, 120), (3, 3)):
        labels[x:x + 3, y:y + 3, z:z + 3] = 4
    return labels


def best_of(repeats: int, work: Callable) -> tuple[float, object]:
    """Return the shortest time in seconds, and the result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return min(times), result


def with_medpy(masks: dict, spacing: tuple) -> dict:
    """The measures of the brats protocol, region by region, as MedPy's functions give them."""
    found = {}
    for region, (ref, pred) in masks.items():
        found[region] = {name: function(pred, ref) for name, function in MEDPY.items()}
        found[region]["Hausdorff95"] = medpy.hd95(pred, ref, voxelspacing=spacing)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--prediction", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.reference and options.prediction:
        volumes = [nib.load(path) for path in (options.reference, options.prediction)]
        reference, prediction = (np.asarray(v.dataobj).astype(np.uint8) for v in volumes)
        spacing = tuple(float(s) for s in volumes[0].header.get_zooms()[:3])
    else:
        reference, prediction, spacing = synthetic_labels(0), synthetic_labels(1), (1.0, 1.0, 1.0)

    protocol = BratsProtocol()
    seconds, ours = best_of(options.repeats,
                            lambda: protocol.score(reference, prediction, REGIONS, spacing))
    # MedPy is given the regions' masks ready made; making them is in the other's time.
    masks = {region: (np.isin(reference, values), np.isin(prediction, values))
             for region, values in REGIONS.items() if ours[region].emptiness == "none_empty"}
    medpy_seconds, theirs = best_of(1, lambda: with_medpy(masks, spacing))
    rows, worst = [], 0.0
    for region, values in theirs.items():
        for measure in protocol.measures:
            a, b = ours[region].values[measure], values[measure]
            worst = max(worst, abs(a - b))
            rows.append((region, measure, f"{a:.6f}", f"{b:.6f}", f"{abs(a - b):.1e}"))
    skipped = [f"{r} ({ours[r].emptiness.replace('_', ' ')})" for r in REGIONS if r not in theirs]
    print(Table(
        f"One case of {'x'.join(map(str, reference.shape))}, three regions, one core",
        ("Region", "Measure", "pixelnet-tf", "MedPy", "Difference"), tuple(rows),
        (f"Hausdorff95 is {protocol.hausdorff95}: {REDUCERS[protocol.hausdorff95].description}.",
         *([f"Left out, MedPy knows no empty masks: {', '.join(skipped)}."] if skipped else []),
         )).render("text"))
    print(f"pixelnet-tf {seconds:.3f} s, MedPy {medpy_seconds:.2f} s: "
          f"{medpy_seconds / seconds:.0f} times as fast; largest difference {worst:.1e}")
    if seconds > 1.0 or medpy_seconds < 10 * seconds or worst > 1e-6:
        sys.exit("too slow or not equal: at most 1.0 s, 10 times MedPy's speed, 1e-6")


if __name__ == "__main__":
    main()
