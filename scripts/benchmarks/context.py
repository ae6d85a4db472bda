"""Hypercolumns of three slices against those of one: a volume in two modes, and a training step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from benchmarks.inference import busy_slices, only_slices, with_batch
from benchmarks.study import Options, configuration, prepared_study, trained_run

CONTEXT = 3
#: Slices of a mini-batch: the authors' number, one slab.
BATCH = 5
#: Neighbouring slices of a volume that a quick call segments.
QUICK_SLICES = 24
#: Times that each form segments the volume, in turns.
ROUNDS = 2


def volume(options: Options, mode: str) -> dict:
    """Processor seconds of a volume with the trained network, and with that of three slices.

    The neighbours' kernels are zero: both look at the same pixels, and the labels must be equal.
    The two take turns, so that another program's load falls on both.
    """
    from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
    from pixelnet_tf.inference.volume import score_voxels
    run, study = trained_run(options), prepared_study(options)
    config, case = run.config(), study.read_volume(study.cases[0])
    busy = busy_slices(case, config)
    if options.quick:
        busy = busy[len(busy) // 2:][:QUICK_SLICES]
    case, few = only_slices(case, busy), only_slices(case, busy[:2])
    found, labels, segmenters = {"slices": len(busy), "mode": mode}, {}, {}
    for context in (1, CONTEXT):
        segmenters[context] = SliceSegmenter(
            _widened(run.model(), context), run.priors().correction("corrected"), mode,
            batch_slices=config.prediction.batch_slices, frozen=True)
        score_voxels(segmenters[context], few, config.study, with_batch(config, 2).prediction)

    def segment(context: int) -> None:
        labels[context] = score_voxels(segmenters[context], case, config.study,
                                       config.prediction).argmax(axis=-1)

    found |= _in_turn({context: partial(segment, context) for context in segmenters}, ROUNDS)
    found["equal_labels"] = float((labels[1] == labels[CONTEXT]).mean())
    return found


def _in_turn(works: dict[int, Callable[[], None]], rounds: int) -> dict:
    """Processor seconds of both forms, each the median of its rounds, and their ratio."""
    seconds: dict[int, list[float]] = {context: [] for context in works}
    for _ in range(rounds):
        for context, work in works.items():
            start = time.process_time()
            work()
            seconds[context].append(time.process_time() - start)
    medians = {context: statistics.median(each) for context, each in seconds.items()}
    return {**{f"context_{context}_seconds": each for context, each in medians.items()},
            "ratio": medians[CONTEXT] / medians[1]}


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
    """Processor seconds of a step of five slices: drawn one by one, and as one slab of three-slice
    columns."""
    from benchmarks.training import step_function
    from pixelnet_tf.dataset.pipeline import training_batches
    from pixelnet_tf.dataset.schedule import SliceSchedule
    from pixelnet_tf.model.pixelnet import PixelNet
    study, config = prepared_study(options), configuration(options)
    sampling = replace(config.sampling, lesion_free_slices=0.0, slab_slices=BATCH)
    found, steps = {}, {}
    for context in (1, CONTEXT):
        form = replace(config.model, context_slices=context)
        schedule = SliceSchedule(study, study.cases, sampling, 1, form.offsets)
        batch = next(iter(training_batches(study, schedule, sampling, batch_slices=BATCH, seed=1)))
        function = step_function(PixelNet(form, 3, 4, seed=1), True, "float32")
        steps[context] = partial(_step, function, batch)
        found[f"context_{context}_trunk_slices"] = len(batch["image"])
        found["pixels"] = len(batch["pixels"])
        for _ in range(2):
            steps[context]()
    return found | _in_turn(steps, 3 if options.quick else 5)


def _step(function, batch) -> None:
    import tensorflow as tf
    float(function(batch, tf.constant([1, 2])))
