"""`pixelnet-tf view`: images, references and predictions in the browser."""

from __future__ import annotations

from pathlib import Path

import click

from pixelnet_tf.cli.options import PATH, set_option, verb
from pixelnet_tf.cli.terminal import TerminalReporter


@verb()
@click.argument("folder", type=PATH, metavar="FOLDER")
@click.option("--references", "references_dir", type=PATH, metavar="STUDY|DIR",
              help="The truth of predictions; default: as recorded with the scores.")
@click.option("--scores", "scores_dir", type=PATH, metavar="DIR", help="Folder that `evaluate "
              "--out` wrote for the predictions; without it, Dice is computed while you look.")
@click.option("--data", "data_dir", type=PATH, metavar="STUDY|PREPARED",
              help="Where the images under predictions come from; default: the references, where "
              "they are a study.")
@click.option("--config", "config_path", metavar="FILE", help="Layout, labels and regions: a YAML "
              "file, or a built-in name; default: what stands beside the predictions, or what the "
              "names of a study tell.")
@set_option
@click.option("--port", default=8502, show_default=True, type=click.IntRange(0, 65535),
              help="Port of 127.0.0.1 to listen on; 0 takes a free one.")
@click.option("--no-browser", "browser", is_flag=True, default=True, flag_value=False,
              help="Only say where the page is, and open no browser.")
def command(folder: Path, references_dir: Path | None, scores_dir: Path | None,
            data_dir: Path | None, config_path: str | None, overrides: tuple[str, ...], port: int,
            browser: bool) -> None:
    """Look at FOLDER in the browser: slices, labels, differences, probabilities.

    FOLDER is what `predict`, `run`, `experiment` or `train --folds` wrote, a raw study, or a
    prepared one. The page is for this machine alone, reads only what is named here, and changes
    nothing. Ctrl-C ends it. For research use only.
    """
    from pixelnet_tf.api.viewing import View

    with TerminalReporter() as reporter:
        View(folder, references=references_dir, scores=scores_dir, data=data_dir,
             config=config_path, overrides=overrides).show(port, browser=browser,
                                                           reporter=reporter)
