"""Hypercolumns of three slices against those of one: a volume in two modes, and a training step."""

from __future__ import annotations

import time
from dataclasses import replace

from benchmarks.inference import busy_slices, only_slices, with_batch
from benchmarks.machine import timed
from benchmarks.study import Options, configuration, prepared_study, trained_run

CONTEXT = 3
#: Slices of a mini-batch: the authors' number, one slab.
BATCH = 5
#: Neighbouring slices of a volume that a quick call segments.
QUICK_SLICES = 8


def volume(options: Options, mode: str) -> dict:
    """Seconds of a volume with the trained network, and with the same one of three slices.

    The neighbours' kernels are zero: both look at the same pixels, and the labels must be equal.
    """
    from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
    from pixelnet_tf.inference.volume import score_voxels
    run, study = trained_run(options), prepared_study(options)
    config, case = run.config(), study.read_volume(study.cases[0])
    busy = busy_slices(case, config)
    if options.quick:
        busy = busy[len(busy) // 2:][:QUICK_SLICES]
    case, few = only_slices(case, busy), only_slices(case, busy[:config.prediction.batch_slices])
    found, labels = {"slices": len(busy), "mode": mode}, []
    for context in (1, CONTEXT):
        segmenter = SliceSegmenter(_widened(run.model(), context), run.priors().correction(
            "corrected"), mode, batch_slices=config.prediction.batch_slices)
        score_voxels(segmenter, few, config.study, with_batch(config, 2).prediction)
        start = time.perf_counter()
        scores = score_voxels(segmenter, case, config.study, config.prediction)
        found[f"context_{context}_seconds"] = time.perf_counter() - start
        labels.append(scores.argmax(axis=-1))
    found["ratio"] = found[f"context_{CONTEXT}_seconds"] / found["context_1_seconds"]
    found["equal_labels"] = float((labels[0] == labels[1]).mean())
    return found


def _widened(model, context: int):
    """The network with kernels of zero for the slices beside."""
    from pixelnet_tf.model.pixelnet import PixelNet
    if context == 1:
        return model
    wide = PixelNet(replace(model.config, context_slices=context), model.channels, model.classes)
    for name, layer in model.parts.items():
        if layer.weights:
            wide.parts[name].set_weights(layer.get_weights())
    return wide


def step(options: Options) -> dict:
    """Seconds of a step of five slices: drawn one by one, and as one slab of three-slice columns.
    """
    import tensorflow as tf

    from benchmarks.training import step_function
    from pixelnet_tf.dataset.pipeline import training_batches
    from pixelnet_tf.dataset.schedule import SliceSchedule
    from pixelnet_tf.model.pixelnet import PixelNet
    study, config = prepared_study(options), configuration(options)
    sampling = replace(config.sampling, lesion_free_slices=0.0, slab_slices=BATCH)
    found = {}
    for context in (1, CONTEXT):
        form = replace(config.model, context_slices=context)
        schedule = SliceSchedule(study, study.cases, sampling, 1, form.offsets)
        batch = next(iter(training_batches(study, schedule, sampling, batch_slices=BATCH, seed=1)))
        function = step_function(PixelNet(form, 3, 4, seed=1), True, "float32")
        found[f"context_{context}_seconds"] = timed(
            lambda f=function, b=batch: float(f(b, tf.constant([1, 2]))),
            3 if options.quick else 5, 2)[0]
        found[f"context_{context}_trunk_slices"] = len(batch["image"])
        found["pixels"] = len(batch["pixels"])
        del function
    found["ratio"] = found[f"context_{CONTEXT}_seconds"] / found["context_1_seconds"]
    return found
