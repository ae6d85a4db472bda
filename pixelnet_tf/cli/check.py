"""`pixelnet-tf check`: whether a folder of results is as it was written."""

from __future__ import annotations

from pathlib import Path

import click

from pixelnet_tf.cli.options import PATH, verb
from pixelnet_tf.cli.terminal import TerminalReporter
from pixelnet_tf.errors import DataError


@verb()
@click.argument("folder", type=PATH)
@click.option("--repair", is_flag=True, help="Remove temporary files that a killed program left, "
              "set broken files aside that the next prepare, predict or evaluate makes anew, and "
              "take the checkpoint before a broken one.")
@click.option("--accept", "accept", multiple=True, metavar="FILE",
              help="Take a file that was changed or removed on purpose as it is now; its path "
              "within FOLDER, or a pattern such as '*.nii.gz'. May be repeated.")
def command(folder: Path, repair: bool, accept: tuple[str, ...]) -> None:
    """See whether every file of FOLDER is as it was written.

    FOLDER is anything that pixelnet-tf wrote: a prepared study, a run, predictions, scores, an
    export, an experiment. Nothing is changed without --repair or --accept. Exit code 0: all is as
    it was written; 3: something is wrong, and stands there with what to do. A file that was set
    aside is wrong until it has been made anew.
    """
    from pixelnet_tf.api.check import check_folder

    with TerminalReporter() as reporter:
        found = check_folder(folder, repair=repair, accept=accept, reporter=reporter)
    for note in found.notes:
        click.echo(f"note: {note}")
    for finding in found.findings:
        click.echo(finding)
    click.echo(f"{found.files} files are as they were written")
    if not found.whole:
        raise DataError(f"{len(found.findings)} files are not as they were written", file=folder)
