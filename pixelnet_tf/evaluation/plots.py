"""Box plots of scores, agreement of volumes, calibration, and the curves of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pixelnet_tf.evaluation.agreement import measured
from pixelnet_tf.evaluation.calibration import BINS, Calibration, by_name
from pixelnet_tf.evaluation.canvas import SERIES, new_figure
from pixelnet_tf.evaluation.summary import Evaluation
from pixelnet_tf.runs.rate_trial import RateTrial, shares

_UNITS = {"Hausdorff95": "Hausdorff95 (mm)", "Hausdorff": "Hausdorff (mm)",
          "AverageDistance": "Average distance (mm)",
          "LesionHausdorff95": "Lesion Hausdorff95 (mm)"}
#: Numbers of lesions begin at 0 and are whole.
_COUNTS = ("LesionsFound", "LesionsMissed", "LesionsFalse")
#: Measures that lie between 0 and 1 are drawn over that range; specificity sits at its top.
_FULL_RANGE = ("Dice", "LesionDice", "Sensitivity", "Precision", "Recall")

_COLUMNS = 3


def box_plots(runs: Mapping[str, Evaluation]) -> Figure:
    """Draw a box per region and run in each measure, with every case as a point.

    Args:
        runs: name -> evaluation; all of one protocol.
    """
    first = next(iter(runs.values()))
    regions, measures = list(first.regions), first.measures
    lines = -(-len(measures) // _COLUMNS)
    figure = new_figure(max(2.6, 0.35 * len(regions) * len(runs) + 1.6) * _COLUMNS, 2.9 * lines)
    axes = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
    for unused in axes[len(measures):]:
        unused.set_axis_off()
    width = 0.8 / len(runs)
    for ax, measure in zip(axes, measures, strict=False):
        for place, (name, run) in enumerate(runs.items()):
            offset = (place - (len(runs) - 1) / 2) * width
            _boxes(ax, [list(run.values(r, measure).values()) for r in regions],
                   np.arange(len(regions)) + offset, width, SERIES[place % len(SERIES)], name)
        counts = [run.spread(r, measure)["n"] for run in runs.values() for r in regions]
        same = len(set(counts)) == 1
        ax.set_title(_UNITS.get(measure, measure) + (f", n = {counts[0]}" if same else ""),
                     fontsize=10)
        ax.set_xticks(range(len(regions)), regions)
        ax.set_xlim(-0.6, len(regions) - 0.4)
        if measure in _FULL_RANGE:
            ax.set_ylim(-0.03, 1.03)
        elif measure in _UNITS:
            ax.set_ylim(bottom=0)
        elif measure in _COUNTS:
            ax.set_ylim(-0.05, max(1.05, ax.get_ylim()[1]))
            ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        ax.ticklabel_format(axis="y", useOffset=False)
        ax.grid(axis="y", alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    if len(runs) > 1:
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(runs), frameon=False)
    return figure


def _boxes(ax: Axes, values: Sequence[list[float]], places: np.ndarray, width: float,
           colour: str, name: str) -> None:
    drawn = [(v, p) for v, p in zip(values, places, strict=True) if v]
    if drawn:
        ax.boxplot([v for v, _ in drawn], positions=[p for _, p in drawn], widths=0.7 * width,
                   showfliers=False, patch_artist=True, manage_ticks=False,
                   boxprops={"facecolor": colour, "alpha": 0.25, "edgecolor": colour},
                   medianprops={"color": colour, "linewidth": 2},
                   whiskerprops={"color": colour}, capprops={"color": colour})
    # The same scatter for the same scores, so that a figure does not change between two runs.
    rng = np.random.default_rng(0)
    for number, (cases, place) in enumerate(drawn):
        spots = place + rng.uniform(-0.18, 0.18, len(cases)) * width
        ax.plot(spots, cases, "o", color=colour, markersize=3.5, alpha=0.8,
                label=name if number == 0 else None)


def volume_agreement(evaluation: Evaluation) -> Figure:
    """Draw the volumes of each region by Bland and Altman: difference over mean, a point a case.

    The lines are the bias and the limits of agreement.
    """
    regions = list(evaluation.regions)
    columns = min(len(regions), _COLUMNS)
    lines = -(-len(regions) // columns)
    figure = new_figure(3.6 * columns, 3.1 * lines)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for unused in axes[len(regions):]:
        unused.set_axis_off()
    for ax, region in zip(axes, regions, strict=False):
        cases = measured(evaluation.agreement(region)).values()
        found = evaluation.volume_agreement(region)
        ax.axhline(0, color="0.6", linewidth=1)
        ax.plot([(case.reference_ml + case.prediction_ml) / 2 for case in cases],
                [case.prediction_ml - case.reference_ml for case in cases], "o", markersize=4,
                color=SERIES[0], alpha=0.8)
        for value, name, style in ((found.bias_ml, "bias", "-"),
                                   (found.high_ml, "upper limit", "--"),
                                   (found.low_ml, "lower limit", "--")):
            if value is not None:
                ax.axhline(value, color=SERIES[1], linestyle=style, linewidth=1.5)
                ax.annotate(f"{name}\n{value:+.3g}", (1, value), xytext=(4, 0),
                            xycoords=ax.get_yaxis_transform(), textcoords="offset points",
                            ha="left", va="center", fontsize=8, color=SERIES[1])
        ax.set_title(f"{region}, n = {found.n}", fontsize=10)
        ax.set_xlabel("mean of both volumes (ml)")
        ax.set_xlim(left=0)
        ax.margins(y=0.15)
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[::columns]:
        ax.set_ylabel("prediction - reference (ml)")
    return figure


def reliability(calibration: Calibration) -> Figure:
    """Draw accuracy over confidence, bin by bin, and below how many voxels are in each bin.

    On the diagonal what is held for probable occurs as often.
    """
    sides = by_name(calibration)
    columns = min(len(sides), _COLUMNS + 1)
    lines = -(-len(sides) // columns)
    figure = new_figure(2.9 * columns, 3.7 * lines)
    axes = figure.subplots(2 * lines, columns, squeeze=False,
                           height_ratios=[3, 1] * lines)
    middles = (np.arange(BINS) + 0.5) / BINS
    for place, (name, found) in enumerate(sides.items()):
        above, below = axes[place // columns * 2:place // columns * 2 + 2, place % columns]
        points = [(x, y) for x, y in zip(found.confidence, found.accuracy, strict=True)
                  if x is not None]
        above.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        above.plot(*zip(*points, strict=True), "o-", color=SERIES[0], markersize=4)
        error = found.expected_calibration_error
        above.set_title(name + ("" if error is None else f"\nECE = {error:.3f}"), fontsize=10)
        above.set_ylim(-0.03, 1.03)
        above.tick_params(labelbottom=False)
        below.bar(middles, np.array(found.voxels) / max(sum(found.voxels), 1), 0.9 / BINS,
                  color=SERIES[0], alpha=0.5)
        below.set_yscale("log")
        below.set_ylim(1e-6, 2)
        below.set_yticks([1e-6, 1e-3, 1])
        below.minorticks_off()
        below.set_xlabel("confidence")
        if place % columns == 0:
            above.set_ylabel("came true")
            below.set_ylabel("voxels (share)")
        for ax in (above, below):
            ax.set_xlim(-0.03, 1.03)
            ax.grid(alpha=0.3)
            ax.spines[["top", "right"]].set_visible(False)
    for place in range(len(sides), lines * columns):
        for row in (0, 1):
            axes[place // columns * 2 + row, place % columns].set_axis_off()
    return figure


def training_curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw loss, learning rate and validation Dice over the steps.

    Args:
        rows: rows of the log, with `step` and any of `loss`, `learning_rate` and
            `validation/dice_<class>`.
    """
    scores = sorted({key for row in rows for key in row if key.startswith("validation/")})
    figure = new_figure(4.2 * (3 if scores else 2), 3.2)
    axes = figure.subplots(1, 3 if scores else 2, squeeze=False)[0]
    steps, losses = _series(rows, "loss")
    axes[0].plot(steps, losses, color=SERIES[0], alpha=0.3, linewidth=1, label="every row")
    if len(losses) >= 10:
        axes[0].plot(*_smooth(steps, losses), color=SERIES[0], linewidth=2,
                     label="moving average")
        axes[0].legend(frameon=False, fontsize=8)
    axes[0].set_title("Training loss", fontsize=10)
    axes[0].set_ylim(bottom=0)
    axes[1].plot(*_series(rows, "learning_rate"), color=SERIES[1])
    axes[1].set_title("Learning rate", fontsize=10)
    axes[1].set_ylim(bottom=0)
    for number, key in enumerate(scores):
        axes[2].plot(*_series(rows, key), "o-", markersize=3, color=SERIES[number % len(SERIES)],
                     label=key.removeprefix("validation/").replace("dice_", "Dice "))
    if scores:
        axes[2].set_title("Validation", fontsize=10)
        axes[2].set_ylim(0, 1)
        axes[2].legend(frameon=False, fontsize=8)
    for ax in axes:
        ax.set_xlabel("step")
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def rate_curves(trial: RateTrial) -> Figure:
    """Draw the losses of each learning rate of a trial, and where each ended."""
    figure = new_figure(8.4, 3.2)
    losses, ends = figure.subplots(1, 2)
    order = sorted(zip(trial.rates, trial.losses, strict=True))
    for number, (rate, curve) in enumerate(order):
        chosen = rate == trial.chosen
        losses.plot(range(1, len(curve) + 1), curve, color=SERIES[number % len(SERIES)],
                    linewidth=2.5 if chosen else 1, label=f"{rate:g}" + " (chosen)" * chosen)
    losses.plot(range(1, len(trial.start) + 1), trial.start, "--", color="0.6", linewidth=1,
                label="start weights")
    # A rate that diverged would hide the others.
    losses.set_ylim(0, 2 * max(trial.start))
    losses.set_title("Loss of each rate, on the same mini-batches", fontsize=10)
    losses.set_xlabel("step")
    losses.legend(frameon=False, fontsize=8)
    whole = [(rate, shares(curve, trial.start)[-1]) for rate, curve in order
             if len(curve) == len(trial.start)]
    ends.plot([rate for rate, _ in whole], [end for _, end in whole], "o-", color=SERIES[0])
    ends.axvline(trial.chosen, color="0.6", linestyle="--", linewidth=1)
    ends.axhline(1, color="0.6", linewidth=1)
    ends.set_ylim(0, 2)
    ends.set_xscale("log")
    ends.set_title("Loss at the end, as a share of the start weights'", fontsize=10)
    ends.set_xlabel("learning rate")
    for ax in (losses, ends):
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    found = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    return [step for step, _ in found], [value for _, value in found]


def _smooth(steps: Sequence[int], values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    window = max(3, len(values) // 20)
    kernel = np.full(window, 1 / window)
    middle = (window - 1) // 2
    smoothed = np.convolve(values, kernel, mode="valid")
    return np.asarray(steps)[middle:middle + len(smoothed)], smoothed
