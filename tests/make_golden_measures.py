"""Makes tests/golden/measures.npz and .json: pairs of masks, and what other programs make of them.

    python tests/make_golden_measures.py

Runs without pixelnet_tf, in an environment of its own, with the published evaluator of BraTS 2023
(github.com/rachitsaluja/BraTS-2023-Metrics, package `brats_2023_metrics`, its surface_distance that
of PyPI) on the path, and surface-distance 0.1, which needs numpy before 1.24 and scipy before 1.11.
Neither is a part of the project: its tests read what is in the files.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import surface_distance
from brats_2023_metrics.surface_distance.brats_metrics import get_lesion_wise_results
from scipy import ndimage

GOLDEN = Path(__file__).parent / "golden"
SPACINGS = ((1.0, 1.0, 1.0), (0.5, 1.0, 2.5))
CHALLENGES = ("BraTS-GLI", "BraTS-MET")
TOLERANCES = (0.5, 1.0, 2.0)
#: Columns of the evaluator -> names of the project.
COLUMNS = {"Lesion_Wise_Score_Dice": "LesionDice", "Lesion_Wise_Score_HD95": "LesionHausdorff95",
           "Legacy_Dice": "Dice", "Legacy_HD95": "Hausdorff95", "Sensitivity": "Sensitivity",
           "Specificity": "Specificity", "Num_TP": "LesionsFound", "Num_FN": "LesionsMissed",
           "Num_FP": "LesionsFalse"}


def blobs(rng: np.random.Generator, shape: tuple[int, ...], share: float, width: float
          ) -> np.ndarray:
    """Random labels of BraTS 2023: 0 but in blobs, 1 to 3 there."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), width)
    inner = ndimage.gaussian_filter(rng.normal(size=shape), 1)
    labels = np.digitize(inner, np.quantile(inner, [1 / 3, 2 / 3])) + 1
    return np.where(field > np.quantile(field, 1 - share), labels, 0).astype(np.uint8)


def random_pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Blobs, and the same with some added, some taken away and the outline frayed."""
    rng = np.random.default_rng(seed)
    shape = (30, 26, 22)
    truth = blobs(rng, shape, rng.uniform(0.01, 0.1), rng.uniform(0.8, 2.5))
    found = np.roll(truth, rng.integers(-1, 2, 3), (0, 1, 2))
    found[rng.random(shape) < 0.1] = 0
    extra = blobs(rng, shape, rng.uniform(0.002, 0.03), 1.0)
    found = np.where(extra > 0, extra, found)
    box = tuple(slice(start, start + 14) for start in rng.integers(0, 9, 3))
    found[box] = 0
    return truth, found


def corner_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """What the rule says about the smallest cases and the emptiest ones."""
    def empty() -> np.ndarray:
        return np.zeros((30, 14, 12), np.uint8)

    pairs = [(empty(), empty())]
    one, other = empty(), empty()
    other[3:5, 3:5, 3:5] = 3
    pairs += [(one, other), (other, one)]           # false alone, missed and too small
    big = empty()
    big[2:6, 2:6, 2:6] = 3
    pairs += [(big, empty()), (big, other)]         # missed; found by a part
    exact, more = empty(), empty()
    exact[2:7, 2:7, 2:4] = 1                        # 50 voxels
    more[2:7, 2:7, 2:4], more[7, 2, 2] = 1, 1       # 51
    alone = empty()
    alone[25, 10, 10] = 1
    pairs += [(exact, empty()), (more, empty()), (exact, exact), (exact, alone), (more, alone)]
    near, far = empty(), empty()
    for labels, second in ((near, 12), (far, 15)):  # 6 and 9 voxels between
        labels[2:6, 2:6, 2:6], labels[second:second + 4, 2:6, 2:6] = 3, 3
    bridge = empty()
    bridge[2:19, 3:5, 3:5] = 3
    pairs += [(near, far), (near, bridge), (far, bridge), (far, near)]
    edge, outside = empty(), empty()
    edge[0:4, 0:4, 0:4], edge[26:30, 10:14, 8:12] = 2, 2
    outside[0:3, 0:5, 0:4] = 2
    pairs += [(edge, outside), (edge, edge)]
    reach = empty()
    reach[9, 3, 3], reach[29, 0, 0] = 3, 3          # one within the dilation of `big` alone
    pairs.append((big, reach))
    return pairs


def published(truth: np.ndarray, found: np.ndarray, spacing: tuple[float, ...], challenge: str
              ) -> dict[str, dict[str, float]]:
    """Region -> measure -> value of the published evaluator."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, labels in (("prediction", found), ("reference", truth)):
            paths.append(f"{folder}/{name}.nii.gz")
            nib.save(nib.Nifti1Image(labels, np.diag([*spacing, 1])), paths[-1])
        table = get_lesion_wise_results(*paths, challenge)
    return {row["Labels"]: {ours: float(row[theirs]) for theirs, ours in COLUMNS.items()}
            for _, row in table.iterrows()}


def surface(truth: np.ndarray, found: np.ndarray, spacing: tuple[float, ...]
            ) -> dict[str, float] | None:
    """Measures of surface-distance of everything that is not 0; None for an empty mask."""
    if not (truth.any() and found.any()):
        return None
    distances = surface_distance.compute_surface_distances(truth > 0, found > 0, spacing)
    return {"hausdorff95": float(surface_distance.compute_robust_hausdorff(distances, 95)),
            **{str(mm): float(surface_distance.compute_surface_dice_at_tolerance(distances, mm))
               for mm in TOLERANCES}}


def main() -> None:
    pairs = [*corner_pairs(), *(random_pair(seed) for seed in range(8))]
    arrays, results = {}, []
    for number, (truth, found) in enumerate(pairs):
        arrays[f"reference_{number}"], arrays[f"prediction_{number}"] = truth, found
        results.append([{"spacing_mm": spacing, "surface": surface(truth, found, spacing),
                         **{name: published(truth, found, spacing, name) for name in CHALLENGES}}
                        for spacing in SPACINGS])
    np.savez_compressed(GOLDEN / "measures.npz", **arrays)
    (GOLDEN / "measures.json").write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
