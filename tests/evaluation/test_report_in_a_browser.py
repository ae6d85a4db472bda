"""The report's viewers, opened from disk: no server, nothing that its policy forbids."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.config import Config
from pixelnet_tf.evaluation.case_images import image_reader
from pixelnet_tf.evaluation.matching import match_cases
from pixelnet_tf.evaluation.protocols import BratsProtocol
from pixelnet_tf.evaluation.report import ReportSource, write_report
from pixelnet_tf.evaluation.score_cases import score_cases
from pixelnet_tf.evaluation.summary import Evaluation
from tests.browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium in the PATH")
STUDY = Config().study


def coloured(pixels: np.ndarray) -> np.ndarray:
    pixels = pixels.astype(int)
    return pixels.max(-1) - pixels.min(-1) > 60


def test_cases_are_scrolled_through_from_disk(tmp_path, predictions_dir, study_dir):
    matching, rules = match_cases(predictions_dir, study_dir, STUDY), BratsProtocol()
    evaluation = Evaluation.of(rules, STUDY.regions, score_cases(matching, STUDY, rules))
    (tmp_path / "run").mkdir()
    source = ReportSource(tmp_path / "run", evaluation, matching, STUDY,
                          image_reader(study_dir, STUDY))
    path = write_report(source, tmp_path / "report.html", overlays=0)[0]
    (tmp_path / "browser").mkdir()
    with Browser(tmp_path / "browser", 1000, 620) as browser:
        browser.open(path.as_uri())
        browser.wait("document.querySelectorAll('details[data-case]').length === 3")
        assert browser.run("document.querySelectorAll('canvas').length") == 0
        browser.run("document.querySelector('details[data-case] summary').click()")
        viewer = "document.querySelector('.viewer')"

        def do(script: str) -> np.ndarray:
            drawn = browser.run(f"Number({viewer}.dataset.drawn ?? 0)")
            browser.run(script)
            browser.wait(f"Number({viewer}.dataset.drawn) > {drawn}")
            browser.run(f"{viewer}.scrollIntoView()")
            return browser.canvas()

        browser.wait(f"Number({viewer}.dataset.drawn) > 0")
        with_prediction = do(f"{viewer}.querySelector('[data-view=axial]').click()")
        assert coloured(with_prediction).sum() > 500
        without = do(f"{viewer}.querySelector('[data-layer=prediction]').click()")
        assert coloured(without).sum() < 0.2 * coloured(with_prediction).sum()
        errors = do(f"{viewer}.querySelector('[data-layer=errors]').click()").astype(int)
        missed = (np.abs(errors - [0x3a, 0x86, 0xff]).max(-1) < 110) & coloured(errors)
        assert missed.sum() > 50
        browser.run(f"{viewer}.querySelector('canvas').focus()")
        before = browser.run(f"{viewer}.querySelector('p').textContent")
        browser.press("PageUp")
        browser.wait(f"{viewer}.querySelector('p').textContent !== {before!r}")
        assert "mm" in before
        assert browser.complaints() == []
    truth = nib.load(study_dir / "case_c" / "case_c_seg.nii.gz")
    assert np.asarray(truth.dataobj).any()
    assert path.stat().st_size < 3e6
