"""`pixelnet-tf compare`: the paper's Tables 2 and 4, for any evaluated runs."""

from __future__ import annotations

from pathlib import Path

import click

from pixelnet_tf.cli.options import OUT_FILE, PATH, verb
from pixelnet_tf.cli.terminal import TerminalReporter
from pixelnet_tf.io.files import write_text


@verb()
@click.argument("folders", nargs=-1, required=True, type=PATH, metavar="RUN_A RUN_B ...")
@click.option("--names", metavar="A,B,...", help="Names of the runs in the tables "
              "[default: those of the folders].")
@click.option("--format", "form", type=click.Choice(["text", "markdown", "csv", "latex"]),
              default="text", show_default=True, help="Form of the tables.")
@click.option("--out", type=OUT_FILE, metavar="FILE", help="Write there instead of the terminal.")
@click.option("--per-case", is_flag=True, help="Add the difference of every case.")
@click.option("--single", is_flag=True, help="Add each run's own table (the paper's Table 1 or 3) "
              "and its spread.")
@click.option("--seed", default=0, show_default=True, help="Seed of the bootstrap's resampling.")
def command(folders: tuple[Path, ...], names: str | None, form: str, out: Path | None,
            per_case: bool, single: bool, seed: int) -> None:
    """Set evaluated runs side by side.

    Each RUN is a folder that `pixelnet-tf evaluate --out` wrote. The differences are of the first
    run minus each other one, over the cases that all of them have.
    """
    from pixelnet_tf.api.reports import compare

    with TerminalReporter() as reporter:
        text = compare(folders, names and [name.strip() for name in names.split(",")], seed=seed,
                       per_case=per_case, single=single, form=form, reporter=reporter)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_text(out, text)
        click.echo(f"written: {out}")
