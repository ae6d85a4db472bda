"""`pixelnet-tf compare`: the paper's Tables 2 and 4, for any evaluated runs."""

from __future__ import annotations

from pathlib import Path

import click

from pixelnet_tf.cli.options import PATH, verb
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.evaluation.comparison import common_cases, comparison_tables, unique_names
from pixelnet_tf.evaluation.summary import read_evaluation
from pixelnet_tf.evaluation.tables import FORMATS, paper_table, render_all, spread_table
from pixelnet_tf.io.files import write_text


@verb()
@click.argument("folders", nargs=-1, required=True, type=PATH, metavar="RUN_A RUN_B ...")
@click.option("--names", metavar="A,B,...", help="Names in the tables; default: the folders'.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True,
              help="Form of the tables.")
@click.option("--out", type=PATH, metavar="FILE", help="Write there instead of the terminal.")
@click.option("--per-case", is_flag=True, help="Add the difference of every case.")
@click.option("--single", is_flag=True, help="Add each run's own table (the paper's Table 1 or 3) "
              "and its spread.")
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap.")
def command(folders: tuple[Path, ...], names: str | None, form: str, out: Path | None,
            per_case: bool, single: bool, seed: int) -> None:
    """Set evaluated runs side by side.

    Each RUN is a folder that `pixelnet-tf evaluate --out` wrote. The differences are of the first
    run minus each other one, over the cases that all of them have.
    """
    labels = [n.strip() for n in names.split(",")] if names else [
        folder.resolve().name for folder in folders]
    if len(labels) != len(folders):
        raise ConfigError(f"--names gives {len(labels)} names for {len(folders)} runs; give one "
                          "each, with commas between")
    unique_names(labels)
    runs = {label: read_evaluation(folder) for label, folder in zip(labels, folders, strict=True)}
    tables = comparison_tables(runs, seed, per_case)
    if single:
        tables += [make(run, name) for name, run in runs.items()
                   for make in (paper_table, spread_table)]
    common = set(common_cases(runs))
    for label, run in runs.items():
        alone = sorted(set(run.scores) - common)
        if alone:
            click.echo(f"{label}: left out {len(alone)} cases that others lack: {alone}", err=True)
    text = render_all(tables, form)
    if out is None:
        click.echo(text, nl=False)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text)
        click.echo(f"written: {out}")
