"""Makes tests/golden/calibration.json: what scikit-learn makes of probabilities and classes.

    python tests/make_golden_calibration.py

Runs without pixelnet_tf, in an environment of its own with scikit-learn 1.9, which is no part of
the project: its tests read what is in the file.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from sklearn.calibration import calibration_curve

BINS, VOXELS, CLASSES = 10, 1000, 3


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (voxel, class) float32, and classes that follow them only roughly."""
    rng = np.random.default_rng(7)
    shares = rng.dirichlet([1.0, 0.7, 0.4], VOXELS)
    sharper = shares**1.5 / (shares**1.5).sum(axis=1, keepdims=True)
    classes = (rng.random((VOXELS, 1)) > sharper.cumsum(axis=1)).sum(axis=1)
    return shares.astype(np.float32), np.minimum(classes, CLASSES - 1)


def curve(hits: np.ndarray, probable: np.ndarray) -> dict[str, object]:
    """scikit-learn's reliability diagram over bins of equal width, without the empty ones."""
    accuracy, confidence = calibration_curve(hits, probable, n_bins=BINS, strategy="uniform")
    voxels, _ = np.histogram(probable, np.linspace(0, 1, BINS + 1))
    voxels = voxels[voxels > 0]
    error = float(voxels @ np.abs(accuracy - confidence) / voxels.sum())
    return {"accuracy": accuracy.tolist(), "confidence": confidence.tolist(),
            "voxels": voxels.tolist(), "expected_calibration_error": error}


if __name__ == "__main__":
    probabilities, truth = drawn()
    best = probabilities.argmax(axis=1)
    found = [curve(best == truth, probabilities.max(axis=1)),
             *(curve(truth == number, probabilities[:, number]) for number in range(1, CLASSES))]
    path = Path(__file__).parent / "golden" / "calibration.json"
    path.write_text(json.dumps({"probabilities": [[float(f"{share:.9g}") for share in row]
                                                  for row in probabilities.tolist()],
                                "truth": truth.tolist(), "curves": found}))
