"""A full-width model within minutes on any processor: the trunk stays, the head learns.

A training step of the whole network takes half a minute on two cores with AVX2. Here the trunk
keeps its start weights, so that the hypercolumns of some thousand pixels are computed once, and the
perceptron learns from those. What was computed stays in the working folder under a key of what it
depends on, and a run that was cut off is taken up where it stood.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.study import Options, configuration, prepared_study, split, start_weights

#: Slices that are looked at, and pixels that are drawn of each.
SLICES, PIXELS = 64, 500
#: Pixels of a mini-batch.
BATCH = 512
#: Steps between two states on disk.
KEEP = 50


def train(options: Options, folder: Path) -> None:
    """Write a run whose head was trained on the split's cases."""
    from pixelnet_tf.cases.class_priors import ClassPriors
    from pixelnet_tf.config import Precision
    from pixelnet_tf.model.pixelnet import PixelNet
    from pixelnet_tf.model.precision import auto_precision
    from pixelnet_tf.runs.folder import RunFolder
    from pixelnet_tf.training.initial import initialise
    config, study, parts = configuration(options), prepared_study(options), split(options)
    model = PixelNet(config.model, len(config.study.modalities), len(config.study.labels), seed=1)
    initialise(model, start_weights(), config.training.pretrained_intensity)
    # What multiplies bfloat16 learns in it: the precision is the processor's own best.
    precision = auto_precision(config.model)
    key = hashlib.sha256(json.dumps([start_weights(), SLICES, PIXELS, study.digest(parts.train),
                                     str(precision)]).encode()).hexdigest()[:12]
    start = time.monotonic()
    features, classes = _hypercolumns(options.folder / f"hypercolumns-{key}", model, study,
                                      parts.train, config)
    print(f"{len(classes)} hypercolumns after {time.monotonic() - start:.0f} s", flush=True)
    scales = _scales(model, features)
    weights = _learned(options.folder / f"head-{key}-{options.steps}.npz", model, features, classes,
                       scales, options.steps, precision == Precision.BFLOAT16)
    for layer, (kernel, bias) in zip(model.architecture.head_names, weights, strict=True):
        model.parts[layer].set_weights([kernel, bias])
    print(f"trained after {time.monotonic() - start:.0f} s, {precision}", flush=True)
    count = len(config.study.labels)
    real = np.zeros(count)
    for case in parts.train:
        volume = study.read_volume(case)
        real += np.bincount(volume.labels[volume.brain], minlength=count)
    drawn = np.bincount(classes, minlength=count)
    run = RunFolder(str(folder))
    run.start(config, parts, ClassPriors(config.study.class_names, tuple(real / real.sum()),
                                         tuple(drawn / drawn.sum())))
    run.save_model(model)
    _decide(run, model, study, parts.validation, config, str(precision))


def _decide(run, model, study, cases, config, precision: str) -> None:
    """The adaptive mode's lattice, on the cases that decide and none of which is segmented here,
    unless there are no others."""
    from pixelnet_tf.inference.decoding import Decoding
    from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
    from pixelnet_tf.inference.volume import PredictionGrid
    from pixelnet_tf.runs.decisions import Decisions
    from pixelnet_tf.training.lattice import ExactCase, decide_lattice, words
    segmenter = SliceSegmenter(model, run.priors().correction("corrected"), precision=precision,
                               frozen=True)
    exact = []
    for case in cases:
        volume = study.read_volume(case)
        grid = PredictionGrid.of(volume, config.prediction.inside_brain(config.study))
        scores = np.empty((*grid.domain.shape, model.classes), np.float32)
        scores[...] = segmenter.background.numpy()
        for rows in grid.batches(config.prediction.batch_slices):
            scores[rows] = segmenter.scores(volume.images[rows], grid.domain[rows]).numpy()
        exact.append(ExactCase(volume, grid, scores))
    lattice, trial = decide_lattice(exact, model.architecture, model.channels,
                                    Decoding(model.classes), config.prediction.adaptive_bound)
    print(words(lattice, trial), flush=True)
    run.save_decisions(Decisions("the least work that keeps to the bound", tuple(cases),
                                 {"lattice": asdict(lattice)}, adaptive=trial))


def _hypercolumns(folder: Path, model, study, cases, config) -> tuple[np.ndarray, np.ndarray]:
    """Hypercolumns (pixel, channel) float16 of drawn pixels, and their classes."""
    import tensorflow as tf

    from pixelnet_tf.dataset.sampler import sample_pixels
    from pixelnet_tf.inference.dense import DenseScorer
    from pixelnet_tf.model.fast_trunk import canvas_pixels
    folder.mkdir(parents=True, exist_ok=True)
    scorer = DenseScorer(model)
    shape = tf.TensorSpec([1, None, None, model.channels], tf.float32)

    @tf.function(autograph=False, input_signature=[shape, tf.TensorSpec([None, 3], tf.int32)])
    def columns(image, pixels):
        places = canvas_pixels(model, pixels)
        return tf.cast(tf.concat([tap.sample(places) for tap in scorer.taps(image)], -1),
                       tf.float16)

    sampling = replace(config.sampling, pixels=PIXELS)
    found = []
    for number, (case, row) in enumerate(_slices(study, cases)):
        file = folder / f"{number}.npz"
        if not file.is_file():
            volume = study.read_volume(case)
            places, drawn = sample_pixels(
                tf.constant(volume.labels[row], tf.int32), tf.constant(volume.brain[row]),
                tf.constant([number, 1]), classes=model.classes, config=sampling)
            pixels = tf.pad(places, [[0, 0], [1, 0]])
            features = columns(tf.constant(volume.images[row][None]), pixels).numpy()
            temporary = file.with_suffix(".tmp.npz")
            np.savez(temporary, features=features, classes=drawn.numpy())
            temporary.rename(file)
        with np.load(file) as held:
            found.append((held["features"], held["classes"]))
    return np.concatenate([one for one, _ in found]), np.concatenate([one for _, one in found])


def _slices(study, cases) -> list[tuple[str, int]]:
    """Case and row of slices, two thirds with a lesion, spread evenly over all that there are."""
    lesion, other = [], []
    for case in cases:
        volume = study.read_volume(case)
        busy = volume.brain.reshape(len(volume.brain), -1).sum(1) >= PIXELS
        shown = volume.labels.reshape(len(busy), -1).any(axis=1)
        lesion += [(case, int(row)) for row in np.flatnonzero(busy & shown)]
        other += [(case, int(row)) for row in np.flatnonzero(busy & ~shown)]
    found = []
    for rows, share in ((lesion, SLICES * 2 // 3), (other, SLICES - SLICES * 2 // 3)):
        places = np.linspace(0, len(rows) - 1, min(share, len(rows))).round().astype(int)
        found += [rows[place] for place in places]
    return found


def _scales(model, features: np.ndarray) -> np.ndarray:
    """(channel,) factors that give every tap the same share of a hypercolumn's length."""
    widths = [tap.width for tap in model.architecture.taps]
    ends = np.cumsum([0, *widths])
    found = np.empty(ends[-1], np.float32)
    for start, stop in pairwise(ends):
        power = np.mean(np.square(features[::7, start:stop], dtype=np.float32))
        found[start:stop] = np.sqrt(ends[-1] / len(widths) / (stop - start) / power)
    return found


def _learned(file: Path, model, features: np.ndarray, classes: np.ndarray, scales: np.ndarray,
             steps: int, narrow: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel and bias of each layer of the head after so many steps of Adam."""
    import tensorflow as tf
    names = model.architecture.head_names
    variables = [tf.Variable(weight) for name in names for weight in
                 (model.parts[name].kernel, model.parts[name].bias)]
    moments = [(tf.Variable(tf.zeros_like(one)), tf.Variable(tf.zeros_like(one)))
               for one in variables]
    state = [*variables, *(one for pair in moments for one in pair)]
    done = 0
    if file.is_file():
        with np.load(file) as held:
            done = int(held["done"])
            for number, variable in enumerate(state):
                variable.assign(held[str(number)])
    kind = tf.bfloat16 if narrow else tf.float32

    @tf.function(autograph=False)
    def step(columns, truth, number, seed):
        with tf.GradientTape() as tape:
            values = columns
            for layer in range(len(names)):
                kernel, bias = variables[2 * layer:2 * layer + 2]
                values = tf.cast(tf.matmul(tf.cast(values, kind), tf.cast(kernel, kind)),
                                 tf.float32) + bias
                if layer < len(names) - 1:
                    values = tf.nn.experimental.stateless_dropout(tf.nn.relu(values), 0.5,
                                                                  seed=seed + layer)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(truth, values))
        rate = 1e-4 * (1 - number / steps)
        for variable, (mean, square), slope in zip(
                variables, moments, tape.gradient(loss, variables), strict=True):
            mean.assign(0.9 * mean + 0.1 * slope)
            square.assign(0.999 * square + 0.001 * tf.square(slope))
            variable.assign_sub(rate * (mean / (1 - 0.9 ** (number + 1)))
                                / (tf.sqrt(square / (1 - 0.999 ** (number + 1))) + 1e-8))
        return loss

    start = time.monotonic()
    while done < steps:
        rng = np.random.default_rng(done)
        chosen = rng.choice(len(classes), min(BATCH, len(classes)), replace=False)
        loss = step(tf.constant(features[chosen].astype(np.float32) * scales),
                    tf.constant(classes[chosen]), tf.constant(float(done)),
                    tf.constant([done, 7]))
        done += 1
        if done % KEEP == 0 or done == steps:
            temporary = file.with_suffix(".tmp.npz")
            np.savez(temporary, done=done, **{str(number): variable.numpy()
                                              for number, variable in enumerate(state)})
            temporary.rename(file)
            print(f"step {done}/{steps}  loss {float(loss):.4f}  "
                  f"{time.monotonic() - start:.0f} s", flush=True)
    arrays = [variable.numpy() for variable in variables]
    # Hypercolumns as they are: the factors belong to the first kernel.
    arrays[0] *= scales[:, None]
    return list(zip(arrays[::2], arrays[1::2], strict=True))
