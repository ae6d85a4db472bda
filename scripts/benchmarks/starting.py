"""How long verbs take to begin, beside `import tensorflow` in the same run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.study import Options, configuration, prepared_study, raw_study, trained_run

#: Loads a run and scores the slice of a prepared case that has the most brain.
_FIRST_SLICE = """if True:
    import sys
    from dataclasses import replace
    import numpy as np
    from pixelnet_tf.dataset.prepared import PreparedStudy
    from pixelnet_tf.inference.slice_segmenter import segmenter_of
    from pixelnet_tf.inference.volume import score_voxels
    from pixelnet_tf.runs.folder import RunFolder
    run, study = RunFolder(sys.argv[1]), PreparedStudy.open(sys.argv[2])
    config, volume = run.config(), study.read_volume(study.cases[0])
    brain = np.zeros_like(volume.brain)
    fullest = volume.brain.sum(axis=(1, 2)).argmax()
    brain[fullest] = volume.brain[fullest]
    prediction = replace(config.prediction, mode="adaptive", precision="float32")
    segmenter = segmenter_of([run.network("corrected")], config.study, prediction)
    score_voxels(segmenter, replace(volume, brain=brain), config.study, prediction)
"""


def start(options: Options) -> dict:
    """Seconds by the clock and of the processor of `import tensorflow`, of `evaluate` of one case
    and, where a model is trained, of a prediction up to its first slice; whole processes in turn.
    """
    python, folder = sys.executable, _pair(options)
    commands = {
        "tensorflow": [python, "-c", "import tensorflow"],
        "evaluate": [python, "-m", "pixelnet_tf", "evaluate", "--overwrite", "--predictions",
                     folder / "predictions", "--references", folder / "references", "--out",
                     folder / "scores", "--set",
                     f"study.modalities=[{','.join(configuration(options).study.modalities)}]"],
    }
    if (options.folder / "run" / "model.keras").is_file():
        run, study = trained_run(options), prepared_study(options)
        commands["predict"] = [python, "-c", _FIRST_SLICE, run.path, study.path]
    found: dict[str, list] = {name: [] for name in commands}
    for _ in range(2 if options.quick else 6):
        for name, command in commands.items():
            found[name].append(_seconds([str(word) for word in command]))
    # The first call of each reads files that the others find in memory.
    times = {name: np.array(each[1:]) for name, each in found.items()}
    ratios = {name: (each / times["tensorflow"]) for name, each in times.items()}
    return {name: {"seconds": median(times[name][:, 0]), "cpu_seconds": median(times[name][:, 1]),
                   "times_import": median(ratios[name][:, 0]),
                   "times_import_cpu": median(ratios[name][:, 1])} for name in commands}


def _seconds(command: list[str]) -> tuple[float, float]:
    """By the clock and of the processor."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime


def _pair(options: Options) -> Path:
    """A folder with the first case's segmentation as the reference, and that moved by a voxel as a
    prediction."""
    import nibabel as nib

    from pixelnet_tf.cases.layouts import find_cases
    folder = options.folder / "start"
    case = find_cases(raw_study(options), configuration(options).study)[0]
    image = nib.load(case.segmentation)
    labels = np.asanyarray(image.dataobj).astype(np.uint8)
    for part, array in (("references", labels), ("predictions", np.roll(labels, 1, axis=0))):
        (folder / part).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, image.affine),
                 folder / part / f"{case.name}.nii.gz")
    return folder
