"""Dense prediction: four modes on one case, each in its own process; then their answers."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import floor
from benchmarks.machine import memory_gb
from benchmarks.study import (
    Options,
    brain_box,
    prepared_study,
    segmented_cases,
    trained_run,
    volume_to_segment,
)

#: Slices that the reference computes: the whole volume would take it most of an hour.
REFERENCE_SLICES = 6


def segment(options: Options, mode: str, precision: str) -> dict:
    """Segment a case in one mode; its scores go into the working folder for `answers`."""
    from pixelnet_tf.inference.volume import finish_volume, score_voxels
    run = trained_run(options)
    volume = volume_to_segment(options)
    config = with_batch(run.config(), 1) if mode == "reference" else run.config()
    busy = busy_slices(volume, config)
    if mode == "reference":
        busy = busy[np.linspace(0, len(busy) - 1, min(REFERENCE_SLICES, len(busy)) + 2)
                    .round().astype(int)[1:-1]]
        volume = only_slices(volume, busy)
    own = segmenter(run, mode, precision)
    loaded = memory_gb()[1]
    start = time.perf_counter()
    grid = _grid(volume, config)
    first = busy[len(busy) // 2:][:grid.together(config.prediction.batch_slices)]
    score_voxels(own, only_slices(volume, first), config.study, config.prediction)
    warm_up = time.perf_counter() - start
    start = time.perf_counter()
    scores = score_voxels(own, volume, config.study, config.prediction)
    if mode != "reference":
        finish_volume(scores, volume, config.study, config.prediction.postprocess)
    seconds = time.perf_counter() - start
    peak = memory_gb()[1]
    np.savez(options.folder / f"scores_{mode}_{precision}.npz", scores=scores[busy], slices=busy)
    return {"seconds": seconds, "slices": len(busy),
            "pixels": int(_grid(volume, config).read_out.sum()),
            "volume_slices": -(-len(scores) // options.every), "first_batch_seconds": warm_up,
            "peak_gb": peak, "peak_gb_loaded": loaded}


def segmenter(run, mode: str, precision: str):
    """What segments with the run's network, as its validation cases decided."""
    from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
    decisions, configured = run.decisions(), run.config().prediction
    lattice = (decisions.apply(configured, configured) if decisions else configured).lattice
    return SliceSegmenter(run.model(), run.priors().correction("corrected"), mode, precision,
                          lattice=lattice, frozen=True)


def busy_slices(volume, config) -> np.ndarray:
    """Numbers of the slices that prediction computes."""
    return np.concatenate(list(_grid(volume, config).batches(1)))


def _grid(volume, config):
    from pixelnet_tf.inference.volume import PredictionGrid
    return PredictionGrid.of(volume, config.prediction.inside_brain(config.study))


def only_slices(volume, numbers: np.ndarray):
    """The volume with nothing to predict in its other slices; the study is skull-stripped."""
    brain = np.zeros_like(volume.brain)
    brain[numbers] = volume.brain[numbers]
    return replace(volume, brain=brain)


def with_batch(config, slices: int):
    """The configuration with another number of slices a batch."""
    return replace(config, prediction=replace(config.prediction, batch_slices=slices))


def answers(options: Options) -> dict:
    """Compare what the modes wrote: logits, labels of brain voxels, Dice of each region."""
    config, volume = trained_run(options).config(), volume_to_segment(options)
    found = {}
    exact = np.load(options.folder / "scores_exact_float32.npz")
    reference = np.load(options.folder / "scores_reference_float32.npz")
    place = np.searchsorted(exact["slices"], reference["slices"])
    # On the original grid, as the scores are.
    brain, truth = (volume.plan.read_voxels(a) for a in (volume.brain, volume.labels))
    inside = brain[reference["slices"]]
    mine, theirs = exact["scores"][place], reference["scores"]
    found["exact"] = {
        "largest_logit_error": float(np.abs(mine - theirs)[inside].max()
                                     / np.abs(theirs[inside]).max()),
        "identical_labels": float((mine.argmax(-1) == theirs.argmax(-1)).mean())}
    brain, truth = brain[exact["slices"]], truth[exact["slices"]]
    label = exact["scores"].argmax(-1)
    found["exact"]["dice"] = _dice(label, truth, config.study)
    for precision in ("float32", "bfloat16"):
        other = np.load(options.folder / f"scores_adaptive_{precision}.npz")["scores"].argmax(-1)
        dice = _dice(other, truth, config.study)
        found[f"adaptive_{precision}"] = {
            "equal_brain_voxels": float((other == label)[brain].mean()), "dice": dice,
            "largest_dice_difference": max(abs(dice[region] - found["exact"]["dice"][region])
                                           for region in dice)}
    return found


def agreement(options: Options) -> dict:
    """The adaptive mode against the exact one on whole cases, at the processor's best precision.

    The first case is unseen; the model may have learned from the second.
    """
    from pixelnet_tf.inference.volume import score_voxels
    from pixelnet_tf.model.precision import auto_precision
    from pixelnet_tf.training.lattice import label_agreement
    run, study = trained_run(options), prepared_study(options)
    config, precision = run.config(), auto_precision(run.config().model)
    modes = [segmenter(run, mode, precision) for mode in ("exact", "adaptive")]
    found = {}
    for case in segmented_cases(options)[:2]:
        volume, seconds, labels = study.read_volume(case), [], []
        for own in modes:
            start = time.perf_counter()
            labels.append(score_voxels(own, volume, config.study, config.prediction).argmax(-1))
            seconds.append(time.perf_counter() - start)
        one = label_agreement(*labels, volume.plan.read_voxels(volume.labels),
                              volume.plan.read_voxels(volume.brain))
        found[case] = {"equal": one.equal, "dice": one.dice, "difference": one.difference,
                       "lost": one.lost, "exact_seconds": seconds[0],
                       "adaptive_seconds": seconds[1]}
        print(f"{case}: {found[case]}", flush=True)
    return {"precision": str(precision), "lattice": str(modes[1].lattice), "cases": found}


def _dice(label: np.ndarray, truth: np.ndarray, study) -> dict[str, float]:
    values, found = np.array(study.label_values), {}
    for region, members in study.regions.items():
        one, other = (np.isin(values[a], members) for a in (label, truth))
        total = int(one.sum() + other.sum())
        found[region] = 2 * int((one & other).sum()) / total if total else 1.0
    return found


def volumes(options: Options) -> dict:
    """Seconds of the files' way, read to written, for 1, 2 and 4 cases (adaptive, bfloat16)."""
    from pixelnet_tf.inference.predict import CaseSource, predict_cases

    class Again(CaseSource):
        """A case under several names, so that every volume costs the same."""

        def __init__(self, source: CaseSource, names):
            super().__init__(source.data, names, None)
            self._source, (self._name,) = source, source.names

        def made_from(self):
            return dict.fromkeys(self.names, self._source.made_from()[self._name])

        def read(self, name: str):
            return replace(self._source.read(self._name), name=name)

        def _check(self, name: str):
            return self._source._check(self._name)

        def only(self, names, without_truth=()):
            return Again(self._source, names)

    run, study = trained_run(options), prepared_study(options)
    config = run.config()
    config = replace(config, prediction=replace(
        config.prediction, mode="adaptive", precision="bfloat16"))
    network = run.network("corrected")
    found = {}
    for count in (1, 2) if options.quick else (1, 2, 4):
        source = Again(CaseSource.open(study.path, config, study.cases[:1]),
                       [f"copy{number}" for number in range(count)])
        with tempfile.TemporaryDirectory(dir=options.work) as out:
            start = time.perf_counter()
            summary = predict_cases([network], source, config, Path(out))
            found[str(count)] = {"seconds": time.perf_counter() - start,
                                 "peak_gb": memory_gb()[1]}
        assert summary.segmented == source.names, summary
    return found


def floors(options: Options, rates: dict) -> dict:
    """Seconds that the case would take at the machine's measured peaks, and multiply-adds."""
    volume = volume_to_segment(options)
    busy = np.flatnonzero(volume.brain.any(axis=(1, 2)))
    height, width = volume.brain.shape[1:]
    pixels = int(volume.brain[busy].sum())
    plain, fast = floor.trunk_plain(height, width), sum(
        floor.trunk_fast(height, width, brain_box(volume.images[row])) for row in busy)
    found = {"pixels": pixels, "slices": len(busy), "macs": {
        "trunk, whole canvas, a slice": plain,
        "trunk around the brain, a slice": fast // len(busy),
        "fc6 and fc7, 8x8 cells, a slice": floor.context(64),
        "fc6 and fc7, 2x2 cells, a slice": floor.context(4),
        "head a pixel, plain": floor.head_plain(),
        "head a pixel, listed": floor.head_listed(),
        "head a pixel, in tiles": floor.head_tiled()}}
    for precision in ("float32", "bfloat16"):
        peak = floor.Rates(rates[f"product_{precision}_gflops"] * 5e8,
                           rates[f"convolution_{precision}_gflops"] * 5e8,
                           rates["reading_gb_per_s"] * 1e9)
        context = floor.context_weight_bytes() / 8
        found[precision] = {
            "reference_volume_seconds": len(volume.brain) * floor.slice_seconds(
                plain + floor.context(64), floor.head_plain() * height * width, 0, peak),
            "trunk_volume_seconds": fast / peak.convolution,
            "exact_volume_seconds": floor.slice_seconds(
                fast, pixels * floor.head_tiled() + len(busy) * floor.context(4),
                len(busy) * context, peak),
            "lattice_volume_seconds": floor.slice_seconds(
                fast, pixels // 16 * floor.head_listed() + len(busy) * floor.context(4),
                len(busy) * context, peak)}
    return found
