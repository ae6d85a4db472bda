"""Options that several verbs share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import click

from pixelnet_tf.config import Config, config_to_yaml, load_config
from pixelnet_tf.errors import ConfigError

#: A path that the verb itself checks, so that its error says what to do next.
PATH = click.Path(path_type=Path)
#: Beside --token-file; a token in an argument would stand in the list of processes.
TOKEN_VARIABLE = "PIXELNET_TOKEN"


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


def read_token(token_file: Path | None) -> str | None:
    """The token from a file, else from the environment, else None; raises `ConfigError`."""
    if token_file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        lines = token_file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {token_file}: cannot be read ({error})") from None
    if not lines:
        raise ConfigError(f"--token-file {token_file}: is empty; write a token into it")
    return lines[0]
