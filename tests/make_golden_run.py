"""Makes tests/golden/run: a small trained run, a case and what the run makes of it.

    python -m tests.make_golden_run

It was run once, before the library was laid out anew; `test_golden_run.py` holds every later
version against it. Run it again only where predictions are meant to change, and say why.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

import pixelnet_tf as px

GOLDEN = Path(__file__).parent / "golden" / "run"
CASE = "phantom_002"
SETTINGS = (
    "split.test=1", "split.validation=1", "prepare.bias_field.iterations=[10, 10]",
    "model.widths=[4, 4, 8, 8, 8]", "model.head_widths=[16, 16]", "model.border=16",
    "sampling.pixels=300", "training.steps=400", "training.batch_slices=4",
    "training.balance_taps=true", "prediction.prior=sampled",
    "prediction.guided_filter={radius: 3, epsilon: 0.1}",
    "prediction.postprocess.minimum_component={WT: 3}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        px.write_phantom(folder / "study", 4, seed=7, size=(40, 36, 14))
        study = px.Study.open(folder / "study", "phantom", SETTINGS)
        run = px.train(study.prepare(folder / "prepared"), study.config, folder / "run")
        shutil.rmtree(GOLDEN, ignore_errors=True)
        (GOLDEN / "run").mkdir(parents=True)
        for file in ("config.yaml", "split.json", "priors.json", "model.keras"):
            shutil.copy(run.file(file), GOLDEN / "run" / file)
        images = {}
        for modality in study.config.study.modalities:
            images[modality] = GOLDEN / f"{modality}.nii.gz"
            shutil.copy(folder / "study" / CASE / f"{CASE}_{modality}.nii.gz", images[modality])
        arrays = {}
        for mode in ("exact", "adaptive"):
            result = px.Segmenter.from_run(GOLDEN / "run", mode=mode).predict(images)
            arrays[f"{mode}_labels"] = result.labels
            arrays[f"{mode}_probabilities"] = result.probabilities
        np.savez_compressed(GOLDEN / "predictions.npz", **arrays)
        print({key: np.unique(value, return_counts=True) for key, value in arrays.items()
               if key.endswith("labels")})


if __name__ == "__main__":
    main()
