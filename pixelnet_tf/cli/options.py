"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from pixelnet_tf.config import Config, config_to_yaml, load_config

#: A path that the verb itself checks, so that its error says what to do next.
PATH = click.Path(path_type=Path)


def config_options(function: Callable) -> Callable:
    """Add `--config`, `--set` and `--print-config`."""
    for option in (
        click.option("--print-config", is_flag=True, help="Print the resolved configuration, "
                     "do nothing else."),
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE",
                     help="Override one value, as in --set training.steps=200; may be repeated."),
        click.option("--config", "config_path", metavar="FILE",
                     help="YAML file, or a built-in name: phantom, brats2017, isles2017, lgg."),
    ):
        function = option(function)
    return function


def dry_run_option(function: Callable) -> Callable:
    """Add `--dry-run`."""
    return click.option("--dry-run", is_flag=True,
                        help="Check everything, say what would be done, change nothing.")(function)


def read_config(config_path: str | None, overrides: tuple[str, ...], print_config: bool) -> Config:
    """Load the configuration; with `--print-config` print it and leave."""
    config = load_config(config_path, overrides)
    if print_config:
        click.echo(config_to_yaml(config), nl=False)
        raise click.exceptions.Exit(0)
    return config
