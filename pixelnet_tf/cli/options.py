"""Options that several verbs share."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pixelnet_tf.cli.session import SESSION
from pixelnet_tf.config import (
    Config,
    Preset,
    config_to_yaml,
    load_config,
)
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.io.files import check_file_name, check_writable
from pixelnet_tf.reporting import LEVEL

#: A path that the verb itself checks, so that its error says what to do next.
PATH = click.Path(path_type=Path)


class _OutFile(click.Path):
    """The name of a file to write: a folder, and a place where none can be written, are refused
    before any work."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None
                ) -> Path:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        check_file_name(path)
        check_writable(path.parent)
        return path


OUT_FILE = _OutFile()
#: Beside --token-file; a token in an argument would stand in the list of processes.
TOKEN_VARIABLE = "PIXELNET_TOKEN"


def _quiet(context: click.Context, option: click.Parameter, value: bool) -> None:
    SESSION.quiet = SESSION.quiet or value


def _verbose(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        SESSION.verbose = True
        os.environ[LEVEL] = "0"


def _log_file(context: click.Context, option: click.Parameter, value: Path | None) -> None:
    if value is not None and not context.resilient_parsing:
        SESSION.keep_in(value)


def session_options(hidden: bool = False) -> list[click.Option]:
    """The options of every verb, which stand before it or after it."""
    return [
        click.Option(["--quiet"], is_flag=True, expose_value=False, callback=_quiet, hidden=hidden,
                     help="Keep messages and progress off the terminal; warnings, errors and "
                     "results stay."),
        click.Option(["--verbose"], is_flag=True, expose_value=False, callback=_verbose,
                     hidden=hidden, help="Show what TensorFlow says of itself, too."),
        click.Option(["--log-file"], type=OUT_FILE, metavar="FILE", expose_value=False,
                     callback=_log_file, hidden=hidden,
                     help="Add messages, warnings, progress and errors to FILE, with the time."),
    ]


class _Verb(click.Command):
    """A command that has the session's options and refuses an option that is given twice.

    Click takes the last one without a word: `export --model A --model B` would export B.
    """

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        # In the help of `pixelnet-tf` they are shown, once.
        self.params = [*self.params, *session_options(hidden=True)]
        self.epilog = "--quiet, --verbose and --log-file FILE: see pixelnet-tf --help."

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Before anything is done with a value: a log file would be opened.
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(list(args))
            for option in self.params:
                if (isinstance(option, click.Option) and order.count(option) > 1
                        and not (option.multiple or option.is_flag or option.count)):
                    raise click.UsageError(f"{option.opts[0]} is given {order.count(option)} times "
                                           "and takes one value", ctx)
        return super().parse_args(ctx, args)


#: `click.command` for a verb.
verb = functools.partial(click.command, cls=_Verb)


set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one value of the "
    "configuration, as in --set training.steps=200. The option may be repeated.")


def config_options(function: Callable) -> Callable:
    """Add `--config`, `--set` and `--print-config`."""
    for option in (
        click.option("--print-config", is_flag=True, help="Print the configuration with "
                     "every default filled in, and do nothing else."),
        set_option,
        click.option("--config", "config_path", metavar="FILE",
                     help="The configuration: a YAML file, or one of the built-in names phantom, "
                          "brats2017, isles2017 and lgg."),
    ):
        function = option(function)
    return function


def plan_options(function: Callable) -> Callable:
    """Add what a plan is made by."""
    for option in (
        click.option("--no-trial", "trial", is_flag=True, default=True, flag_value=False,
                     help="Leave the trial of the network out, some 20 s; steps are then the "
                     "preset's, time and memory are not told."),
        click.option("--weights", metavar="FILE", help="Weights of an ImageNet VGG-16 to start "
                     "from (scripts/get_vgg16.py) [default: Keras' own, where they are at hand]."),
        click.option("--minutes", type=click.FloatRange(min=0, min_open=True), metavar="M",
                     help="Processor minutes that the training of a network may take, on two cores "
                     "half as many by the clock [default: 60 for best, 4 for laptop; faithful has "
                     "the original's 80 epochs]."),
        click.option("--preset", type=click.Choice(Preset.texts()),
                     help="What the plan is made for: best finds most and starts from ImageNet's "
                     "weights; faithful has the paper's values; laptop is a small network, trained "
                     "in minutes [default: best where such weights are at hand and slices are not "
                     "small, else laptop]."),
    ):
        function = option(function)
    return function


def dry_run_option(function: Callable) -> Callable:
    """Add `--dry-run`."""
    return click.option("--dry-run", is_flag=True,
                        help="Check everything and say what would be done, but change "
                        "nothing.")(function)


def cases_options(function: Callable) -> Callable:
    """Add `--scheduler` and `--part`, which say who does the cases."""
    for option in (
        click.option("--part", metavar="I/N", help="Do this part of the cases alone, the I-th of "
                     "N, as one of several calls that share the work [default: in a task of a "
                     "Slurm array the task's part, else all]."),
        scheduler_option,
    ):
        function = option(function)
    return function


def scheduler_option(function: Callable) -> Callable:
    """Add `--scheduler`."""
    return click.option(
        "--scheduler", metavar="ADDRESS|local[:N]|slurm[:N]", help="Let workers of Dask do the "
        "cases: those of a running scheduler (tcp://HOST:8786), N processes of this machine, or N "
        "jobs of Slurm. It needs the extra cluster; docs/scale.md says more.")(function)


class _SeriesOption(click.ParamType):
    """`MODALITY=PATTERN`, as a setting of the configuration."""

    name = "series"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None
                ) -> str:
        modality, equals, pattern = str(value).partition("=")
        if not (equals and modality.strip() and pattern.strip()):
            self.fail(f"takes MODALITY=PATTERN, as in flair='*FLAIR*', got {value!r}", param, ctx)
        # Quoted: a bare * begins something else in YAML.
        return f"study.series.{modality.strip()}={json.dumps(pattern.strip())}"


def series_option(function: Callable) -> Callable:
    """Add `--series`; `with_series` makes settings of what it received."""
    return click.option("--series", "series", multiple=True, type=_SeriesOption(),
                        metavar="MODALITY=PATTERN",
                        help="Where the cases are folders of DICOM: take for this modality the "
                        "series whose description fits, as in --series flair='*FLAIR*'. The option "
                        "may be repeated.")(function)


def with_series(overrides: tuple[str, ...], series: tuple[str, ...]) -> tuple[str, ...]:
    """The settings, with those of `--series`, which says that the layout is DICOM."""
    return (*overrides, "study.layout=dicom", *series) if series else overrides


def refuse_given(reason: str, *names: str) -> None:
    """Refuse options that would take no part in this call.

    Args:
        reason: what stands behind the options' names in the message.
        names: parameters of the verb.

    Raises:
        click.UsageError: the call gives one of them, also with its default value.
    """
    context = click.get_current_context()
    if given := [option.opts[0] for option in context.command.params if option.name in names
                 and context.get_parameter_source(option.name) == ParameterSource.COMMANDLINE]:
        raise click.UsageError(f"{', '.join(given)}: {reason}")


def read_config(config_path: str | None, overrides: tuple[str, ...], print_config: bool) -> Config:
    """Load the configuration; with `--print-config` print it and leave."""
    config = load_config(config_path, overrides)
    print_and_leave(config, print_config)
    return config


def print_and_leave(config: Config, print_config: bool) -> None:
    """What `--print-config` does, where it is given."""
    if print_config:
        click.echo(config_to_yaml(config), nl=False)
        raise click.exceptions.Exit(0)


def read_token(token_file: Path | None) -> str | None:
    """The token from a file, else from the environment, else None.

    Raises:
        ConfigError: there is an empty file or variable, or what it holds is no token. That an
            empty one should mean none would open a server whose secret failed to arrive.
    """
    if token_file is None:
        if TOKEN_VARIABLE not in os.environ:
            return None
        text = os.environ[TOKEN_VARIABLE]
    else:
        try:
            text = token_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the token cannot be read ({error})", file=token_file) from None
    lines = text.splitlines()
    token = lines[0].strip() if lines else ""
    if not token:
        fault = ConfigError("is empty", hint="write a token into it"
                            + ("" if token_file else ", or unset it to do without"))
        raise ConfigError.of(fault, source=token_file or TOKEN_VARIABLE)
    if not re.fullmatch("[!-~]+", token):
        fault = ConfigError("a token is one word of printable ASCII characters",
                            hint="write another one into it")
        raise ConfigError.of(fault, source=token_file or TOKEN_VARIABLE)
    return token
