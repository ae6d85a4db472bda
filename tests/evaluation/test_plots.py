"""What the plots show is what the scores and the log say."""

from __future__ import annotations

import numpy as np
import pytest

from pixelnet_tf.evaluation.plots import box_plots, rate_curves, training_curves
from pixelnet_tf.evaluation.protocols import BratsProtocol, RegionScore
from pixelnet_tf.evaluation.summary import Evaluation
from pixelnet_tf.runs.rate_trial import RateTrial


def _evaluation(values, averaged=True):
    names = BratsProtocol().measures
    scores = {f"case{i}": {"ET": RegionScore("none_empty", dict.fromkeys(names, v),
                                             dict.fromkeys(names, averaged))}
              for i, v in enumerate(values)}
    return Evaluation.of(BratsProtocol(), {"ET": (4,)}, scores)


def test_box_plots_show_every_case_and_the_median():
    figure = box_plots({"a": _evaluation([0.1, 0.4, 0.9]), "b": _evaluation([0.2, 0.6])})
    dice = figure.axes[0]
    assert dice.get_title().startswith("Dice")
    points = [sorted(line.get_ydata()) for line in dice.lines if line.get_marker() == "o"]
    assert points == [[0.1, 0.4, 0.9], [0.2, 0.6]]
    medians = [line.get_ydata()[0] for line in dice.lines
               if len(line.get_ydata()) == 2 and line.get_linewidth() == 2]
    assert medians == pytest.approx([0.4, 0.4])
    titles = [ax.get_title() for ax in figure.axes if ax.axison]
    assert any(title.startswith("Hausdorff95 (mm)") for title in titles)
    assert len(titles) == 5


def test_a_measure_without_cases_leaves_its_plot_empty():
    figure = box_plots({"a": _evaluation([0.5], averaged=False)})
    assert not figure.axes[0].lines
    assert "n = 0" in figure.axes[0].get_title()


def test_training_curves_show_the_log():
    rows = [{"step": i, "loss": 1 / i, "learning_rate": 0.1} for i in range(1, 41)]
    rows += [{"step": 40, "validation/dice_edema": 0.5}]
    figure = training_curves(rows)
    loss, rate, validation = figure.axes
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [1 / i for i in range(1, 41)])
    # The moving average covers 3 rows here and stands at the middle one.
    assert loss.lines[1].get_xdata()[0] == 2
    assert loss.lines[1].get_ydata()[0] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert set(rate.lines[0].get_ydata()) == {0.1}
    assert validation.lines[0].get_label() == "Dice edema"
    assert list(validation.lines[0].get_ydata()) == [0.5]


def test_rate_curves_show_every_rate_and_where_it_ended():
    trial = RateTrial("rule", "SGD", 1e-3, (2.0,) * 8, (1e-3, 2e-3, 4e-3),
                      ((1.0,) * 8, (3.0,) * 8, (2.0, 9.0)))
    losses, ends = rate_curves(trial).axes
    assert [line.get_label() for line in losses.lines] == [
        "0.001 (chosen)", "0.002", "0.004", "start weights"]
    assert list(losses.lines[2].get_ydata()) == [2.0, 9.0]
    # The last one was not finite and has no end.
    assert list(ends.lines[0].get_xdata()) == [1e-3, 2e-3]
    assert list(ends.lines[0].get_ydata()) == pytest.approx([0.5, 1.5])
