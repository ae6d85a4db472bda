"""The race: this package's forms and nnU-Net's 2-D U-Net at equal CPU time on the same cases.

    python scripts/head_to_head.py OUT --data PREPARED --references STUDY --time \\
        [--validation CASES --folds 4] [--minutes 60] [--precision bfloat16] [--set KEY=VALUE]
    python scripts/head_to_head.py OUT --list
    python scripts/head_to_head.py OUT --job best/0
    python scripts/head_to_head.py OUT                  # every job that is left, then the tables
    python scripts/head_to_head.py OUT --times 4 --fold 0
    python scripts/head_to_head.py OUT --away FOLDER    # to train elsewhere, with a GPU
    python scripts/head_to_head.py OUT --back FOLDER

`--time` measures the CPU-seconds of a step of each contestant, on a quiet machine, and writes the
steps that fit into --minutes to OUT/race.json, with everything else that must be the same for all:
cases, folds, settings. `--steps N` writes N for all instead, `--steps best=1626,nnunet=1125` those
of another measurement. A job is a contestant on a fold; it trains, chooses a cut and a clean-up on
its own validation cases, segments its test cases and ends with OUT/jobs/CONTESTANT/foldN/job.json.
A job that was stopped goes on, one that has ended is left alone. OUT/results.md has the tables
(scores by `evaluate`, differences by `compare`), learning curves, costs and pictures of the cases
in which contestants differ most, over the folds that all have ended.

Contestants: `best` (the preset of that name on the configuration), `faithful` (the paper's
sampling, loss and solver: the configuration as it is; configs/lgg.yaml has a small head, since 60
CPU-minutes of the full one are a hundred steps), `uniform` (the same with the original PixelNet's
sampling), `nnunet` (the peer, which needs `pip install '.[peer]'`; see scripts/race/peer.py).
--contestants chooses among them.

All are predicted by the arg max as it is, and by a cut (one number added to the scores of the
lesions) with a clean-up, chosen by the mean Dice of the validation cases where the gain is more
than noise: by the same code for all.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

# PyTorch (and Triton, which its solvers load) crashes where TensorFlow was loaded before it; only
# the peer's calls load it.
if {"--time", "--back"} & {*sys.argv} or any(word.startswith("nnunet/") for word in sys.argv):
    with suppress(ImportError):
        import torch._dynamo  # noqa: F401

from race import away, jobs, results
from race.plan import PEER, Job, Race, machine, named_cases, preset_overrides, race_splits

from pixelnet_tf.config import load_config
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import ConfigError, PixelNetError
from pixelnet_tf.reporting import reporter_or_log

CONTESTANTS = ("best", "faithful", "uniform", PEER)


class Printer:
    """Prints messages at once; progress every ten seconds' worth would only fill a log."""

    def message(self, text: str) -> None:
        print(text, flush=True)

    def warning(self, text: str) -> None:
        print(f"warning: {text}", flush=True)

    def progress(self, task: str, done: int, total: int, detail: str = "") -> None:
        if done == total or done % 50 == 0:
            print(f"{task} {done}/{total} {detail}", flush=True)


def settings_of(name: str, config: str, given: list[str]) -> tuple[str, tuple[str, ...]]:
    """Base and overrides of a contestant."""
    # Of lgg.yaml the start of the training is every contestant's; its own decisions are none's.
    own = {"best": preset_overrides("best"), "faithful": (),
           "uniform": ("sampling.strategy=uniform",), PEER: ()}
    if name not in own:
        raise ConfigError(f"no contestant {name!r}", value=name, hint=f"known are {list(own)}")
    return "" if name == PEER else config, (*own[name], *given)


def begin(given: argparse.Namespace, contestants: dict[str, tuple[str, tuple[str, ...]]],
          tested: bool = True) -> Race:
    """Write OUT/race.json, with measured steps or given ones; not tested: no test case is opened.
    """
    if any((given.out / "jobs").glob("*/*/run")):
        raise ConfigError("has jobs that have begun, whose steps were others", file=given.out,
                          hint="begin a new folder")
    study = PreparedStudy.open(given.data)
    splits = race_splits(study, named_cases(given.validation), given.folds, given.seed)
    if not tested:
        # What a fold holds out judges it where nobody else does; the test cases of a split do not.
        splits = tuple(replace(split, test=(), validation=split.validation or (
            split.test if study.split.folds else ())) for split in splits)
        if not all(split.validation for split in splits):
            raise ConfigError("has no validation cases, so that nothing would be judged",
                              file=given.data, hint="give --validation, or prepare the study with "
                              "split.validation or split.folds")
    race = Race(str(given.data), tuple(map(str, given.references)), splits,
                {name: base for name, (base, _) in contestants.items()},
                {name: tuple(settings) for name, (_, settings) in contestants.items()},
                _steps(given.steps, contestants), {}, 0.0 if given.steps
                else given.minutes, given.precision, given.seed, machine(), given.validations)
    for name in contestants:
        race.config(name)
    if tested:
        results.references(race)
    if not given.steps:
        race = jobs.measure(given.out, race, Printer(), given.time_steps)
    race.write(given.out)
    jobs.write_settings(given.out, race)
    return race


def _steps(text: str | None, contestants: Iterable[str]) -> dict[str, int]:
    """Steps of each contestant, as `--steps` gives them; 1 where they will be measured.

    Raises:
        ConfigError: not whole numbers above 0, or not those of the contestants.
    """
    names = list(contestants)
    pairs = [part.rpartition("=")[::2] for part in (text or "1").split(",")]
    given = {name.strip(): number.strip() for name, number in pairs}
    if [name for name, _ in pairs] == [""]:
        given = dict.fromkeys(names, given[""])
    if sorted(given) != sorted(names) or len(given) < len(pairs) or not all(
            number.isdecimal() and int(number) for number in given.values()):
        raise ConfigError(f"--steps takes a number, or one for each of {names}", value=text,
                          hint=f"such as --steps {','.join(f'{name}=1000' for name in names)}")
    return {name: int(given[name]) for name in names}


def arguments(description: str) -> argparse.ArgumentParser:
    """What `head_to_head.py` and `ablations.py` take."""
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the race")
    parser.add_argument("--data", type=Path, help="prepared study with all cases")
    parser.add_argument("--references", type=Path, action="append", default=[],
                        help="study with the segmentations of the test cases; may be repeated")
    parser.add_argument("--validation", type=Path, help="cases that validate every fold: a text "
                        "file of names, a split's JSON, or a folder of cases (default: the study's "
                        "own split)")
    parser.add_argument("--folds", type=int, default=4, help="with --validation: folds of the "
                        "other cases; 0 keeps the study's test cases (default 4)")
    parser.add_argument("--config", default="lgg", help="configuration that all start from")
    parser.add_argument("--set", dest="overrides", action="append", default=[],
                        metavar="KEY=VALUE", help="a setting for every contestant")
    parser.add_argument("--seed", type=int, default=1989)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32",
                        help="of every contestant's matrix products")
    parser.add_argument("--minutes", type=float, default=60.0, help="CPU-minutes of a training")
    parser.add_argument("--validations", type=int, default=6, help="times that a training looks "
                        "at its validation cases, which choose its checkpoint")
    parser.add_argument("--time", action="store_true", help="measure the steps, write race.json")
    parser.add_argument("--time-steps", type=int, default=12, help="steps that --time measures")
    parser.add_argument("--steps", metavar="N|NAME=N,...",
                        help="write race.json with these steps, for all or for each")
    parser.add_argument("--contestants", help="some of them, with commas between")
    parser.add_argument("--list", action="store_true", help="show the jobs")
    parser.add_argument("--job", help="run one job")
    parser.add_argument("--times", type=int, default=1, help="a multiple of the steps")
    parser.add_argument("--fold", type=int, action="append", default=[],
                        help="these folds alone; may be repeated")
    parser.add_argument("--away", type=Path, metavar="FOLDER", help="pack the jobs that are left "
                        "for a machine with JAX and PyTorch, see scripts/race/train_away.py")
    parser.add_argument("--back", type=Path, metavar="FOLDER", help="take over what was trained "
                        "there, then go on")
    parser.add_argument("--tables", action="store_true", help="only make the tables again")
    return parser


def work(given: argparse.Namespace, script: str, race: Race,
         write: Callable[[Path, Race, int], Path | None]) -> int:
    """List, run a job, or run all that is left and make the tables."""
    todo = list(race.jobs(given.times, given.fold))
    if given.list:
        print(jobs.describe(given.out, race, todo))
        return 0
    if given.away:
        away.pack(race, [job for job in todo if not jobs.is_done(given.out, job)], given.away,
                  Printer())
        return 0
    if given.back:
        away.unpack_all(given.out, race, todo, given.back, Printer())
    if given.job:
        found = jobs.run_job(given.out, Job.of(given.job), Printer())
        print(f"{found['job']}: validation Dice {found['validation_argmax']} (arg max), "
              f"{found['validation_decided']} ({found['decided']})")
        return 0
    failed = []
    for job in todo if not given.tables else ():
        if not jobs.is_done(given.out, job):
            # A process of its own: its memory and its threads are its own.
            print(f"== {job.name}", flush=True)
            if subprocess.run([sys.executable, script, str(given.out), "--job", job.name]
                              ).returncode:
                failed.append(job.name)
    path = write(given.out, race, given.times)
    print(f"tables in {path}" if path else "no fold has been ended by all contestants yet")
    if failed:
        print(f"failed: {', '.join(failed)}; the same command goes on with them")
    return int(bool(failed))


def script(argv: list[str] | None, description: str, file: str,
           start: Callable[[argparse.Namespace], Race],
           write: Callable[[Path, Race, int], Path | None]) -> int:
    """What `head_to_head.py` and `ablations.py` do: begin a race, or work at one."""
    given = arguments(description).parse_args(argv)
    reporter_or_log(None)
    try:
        if given.time or given.steps:
            if given.data is None:
                raise ConfigError("--data is needed to begin a race")
            race = start(given)
            print(jobs.describe(given.out, race, list(race.jobs())))
            return 0
        return work(given, file, Race.read(given.out), write)
    except PixelNetError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def start(given: argparse.Namespace) -> Race:
    """Begin the race of `--contestants`, or of all."""
    if not given.references:
        raise ConfigError("--references are needed, for test cases are scored")
    load_config(given.config)
    names = given.contestants.split(",") if given.contestants else CONTESTANTS
    return begin(given, {name: settings_of(name, given.config, given.overrides) for name in names})


def main(argv: list[str] | None = None) -> int:
    """Run the race, or a part of it."""
    return script(argv, __doc__, __file__, start, results.write_results)


if __name__ == "__main__":
    sys.exit(main())
