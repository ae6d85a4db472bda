"""The console command `pixelnet-tf`: one file per verb, loaded when it is called."""

from __future__ import annotations

import atexit
import importlib
import os
import signal
import sys
import traceback
from contextlib import suppress
from types import FrameType
from typing import NoReturn

import click

from pixelnet_tf import __version__
from pixelnet_tf.cli.options import session_options
from pixelnet_tf.cli.session import SESSION
from pixelnet_tf.errors import PixelNetError, RunError, is_out_of_memory
from pixelnet_tf.reporting import load_tensorflow_quietly

#: Verb -> its one line in `--help`. A verb lives in the module of its name (`-` becomes `_`), as
#: `command`; listing them here keeps `--help` free of TensorFlow's import.
VERBS = {
    "phantom": "Write a synthetic study with known truth.",
    "plan": "Look at a study, and write a configuration that says why.",
    "run": "All of it: plan, prepare, train, predict, evaluate, report.",
    "prepare": "Correct, normalise and slice a study into shards.",
    "train": "Train a PixelNet on a prepared study.",
    "predict": "Segment cases with a trained model.",
    "postprocess": "Choose the clean-up of predictions on validation cases.",
    "evaluate": "Score segmentations as the challenges do.",
    "compare": "Set evaluated runs side by side.",
    "experiment": "Balanced against uniform sampling, over folds, by one command.",
    "info": "Say what this installation and this machine are.",
    "check": "See whether a folder is as it was written, and mend it.",
    "report": "One HTML file with curves, scores and pictures of a run.",
    "view": "Look at images, references and predictions in the browser.",
    "submit": "Write the archive that a challenge takes.",
    "export": "Write a SavedModel for TensorFlow Serving.",
    "pack": "Write a trained model as one file to hand on.",
    "serve": "Answer TensorFlow Serving's REST API, and NIfTI in, NIfTI out.",
    "import-caffe": "Turn Caffe weights into a model of this project.",
    "export-caffe": "Turn a trained model into a prototxt and a caffemodel.",
    "parity": "Compare a Caffe network, built here, with arrays that Caffe wrote.",
}


class _Verbs(click.Group):
    """A group that imports a verb's module when the verb is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        return importlib.import_module(f"pixelnet_tf.cli.{name.replace('-', '_')}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, params=session_options(),
             context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pixelnet-tf")
def cli() -> None:
    """Class-Balanced PixelNet: a folder of MRI in, segmentations and their scores out.

    `pixelnet-tf run STUDY OUT` does all of it. The usual order of the single verbs is plan,
    prepare, train, predict, evaluate, report; phantom makes a study to try them. Every verb
    explains itself with --help. For research use only, not for diagnosis.

    Exit codes: 0 done, 2 usage or configuration, 3 data that is missing or invalid, 4 a model or
    weights that are missing or do not fit, 5 runtime failure, 130 interrupted, 143 ended by
    SIGTERM, 75 a training on several devices ended by SIGTERM (start again with --resume).
    """


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _leave(code: int) -> NoReturn:
    """End the process with an exit code, after what is due at its end.

    The S3 library of tensorflow-io aborts the process when it is unloaded (code 134, "pure virtual
    method called"), so that it is not.
    """
    if sys.exc_info()[0] not in (None, SystemExit):
        traceback.print_exc()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _failed(text: str, code: int) -> int:
    """Say why the call ends; returns the exit code."""
    SESSION.keep(f"error: {text}")
    click.echo(f"error: {text}", err=True)
    return code


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every foreseen failure is one message and its exit code."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    # TensorFlow would take a GPU's whole memory at its start, whatever it needs.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    load_tensorflow_quietly()
    SESSION.arguments = tuple(sys.argv[1:] if arguments is None else arguments)
    code = 0
    try:
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            # As Ctrl-C does, it leaves by the way on which locks and temporary files are removed.
            signal.signal(signal.SIGTERM, _end)
        code = cli.main(arguments, prog_name="pixelnet-tf", standalone_mode=False) or 0
    except click.ClickException as error:
        SESSION.keep(f"error: {error.format_message()}")
        error.show()
        code = error.exit_code
    except PixelNetError as error:
        code = _failed(str(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        SESSION.keep("interrupted")
        click.echo("interrupted", err=True)
        code = 130
    except UnicodeEncodeError as error:
        # TensorFlow takes no name that is no text. It stands here as it is escaped.
        name = os.fsencode(error.object).decode("utf-8", "backslashreplace")
        code = _failed(f"{name}: the name is no UTF-8 text; rename it", 2)
    except OSError as error:
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        code = _failed(f"{place}{error.strerror or error}", RunError.exit_code)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            code = 1
            raise
        code = _failed("memory does not suffice; close other programs, raise the limit "
                       "(ulimit -v), or give less at once", RunError.exit_code)
    finally:
        SESSION.end(code)
        if signal.getsignal(signal.SIGTERM) == _end:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if "tensorflow_io" in sys.modules:
            _leave(code)
    sys.exit(code)
