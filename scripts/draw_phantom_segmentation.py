"""Draw docs/images/phantom_segmentation.png, the README's picture, from what quickstart.sh wrote.

    python scripts/draw_phantom_segmentation.py quickstart [OUT.png]

Needs the extra [report]. One slice of the first test case: input, truth, prediction, errors.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pixelnet_tf import Segmenter, Study
from pixelnet_tf.api.images import read_image
from pixelnet_tf.evaluation.case_images import CaseImage
from pixelnet_tf.evaluation.overlay import overlay_figure, slices_with_most_lesion
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.volumes.slicing import SlicePlan

TARGET = Path(__file__).resolve().parents[1] / "docs" / "images" / "phantom_segmentation.png"


def main(work: Path, out: Path) -> None:
    run = RunFolder(str(work / "job" / "run"))
    study = Study.open(work / "study", run.config())
    name = run.split().test[0]
    case = next(case for case in study.cases if case.name == name)
    labels = Segmenter.from_run(run.path).predict(case.volumes, probabilities=False).labels
    flair = read_image(case.volumes["flair"], "flair")
    truth = read_image(case.segmentation, "truth").array.astype("uint8")
    number, = slices_with_most_lesion(SlicePlan(flair.geometry).to_slices(truth), count=1)
    figure = overlay_figure(CaseImage(flair.array, flair.array > 0, "flair"), truth, labels,
                            flair.geometry, study.config.study, f"{name}, not trained on",
                            slices=[number])
    figure.savefig(out, dpi=70)
    print(f"{out}: slice {number + 1} of {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else TARGET)
