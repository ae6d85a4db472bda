"""Power cuts and kills of every verb that writes a folder, and what becomes of the work.

    python scripts/power_cuts.py [--cuts 200] [--resumes 20] [--kills] [--seed 0] [--verb VERB ...]

Makes a small study and runs `prepare`, `train`, `predict`, `export` and `experiment` once each, and
records what they do to their folder: files, names, syncs (tests/power_cut.py). Then, CUTS times in
all, it cuts the record at some event and makes the folder hold what a disk may hold: what was not
synced is lost, or kept, by chance. `pixelnet-tf check` must find no damage, and every file that the
verb had acknowledged must be there. In RESUMES of them the verb is run again to its end, which must
be the same to the last bit.

--kills: the same just before an event of every kind to every sort of file, with nothing lost but
the program, each run again to its end: the same bits, and no temporary file or lock left.

Prints a line a verb. Exit code 1 where something was lost.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pixelnet_tf.cli import main as command_line
from tests.power_cut import (
    Record,
    damage,
    leftovers,
    lost,
    outcome,
    recorded,
    write_state,
)

TINY = [f"--set={option}" for option in (
    "prepare.bias_field.enabled=false", "split.test=1", "split.validation=1",
    "model.widths=[3, 4, 4, 5, 5]", "model.head_widths=[8]", "model.border=16",
    "sampling.pixels=60", "training.steps=3", "training.batch_slices=2",
    "training.checkpoint_every=1", "training.validate_every=2")]


@dataclass(frozen=True)
class Verb:
    """A verb and the folder that it writes, below the folder of all.

    Attributes:
        again: what is added to the command where it goes on.
    """

    name: str
    folder: str
    command: Sequence[str]
    again: Sequence[str] = ()


VERBS = (
    Verb("prepare", "prepared", ["prepare", "--config=phantom", *TINY, "--data={0}/study",
                                 "--out={0}/prepared", "--workers=1"]),
    Verb("train", "run", ["train", "--config=phantom", *TINY, "--data={0}/prepared",
                          "--out={0}/run"], ["--resume"]),
    Verb("predict", "predictions", ["predict", "--model={0}/run", "--data={0}/prepared",
                                    "--out={0}/predictions", "--probabilities", "--overlays"]),
    Verb("export", "models", ["export", "--model={0}/run", "--out={0}/models", "--name=tiny",
                              "--version=1"]),
    Verb("experiment", "experiment", ["experiment", "--config=phantom", *TINY,
                                      "--set=training.steps=2", "--data={0}/prepared",
                                      "--references={0}/study", "--out={0}/experiment"]),
)


def call(arguments: Sequence[str], top: Path) -> None:
    """Call the command line in this process; raises RuntimeError with what it said."""
    said = io.StringIO()
    code = 0
    with redirect_stdout(said), redirect_stderr(said):
        try:
            command_line([argument.format(top) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
    if code:
        raise RuntimeError(f"{arguments[0]} ended with {code}: {said.getvalue()[-2000:]}")


def go_on(verb: Verb, top: Path) -> list[str]:
    """Run a verb again in the folder that it finds; returns what is wrong with the outcome."""
    folder = top / verb.folder
    try:
        if verb.name == "export" and (folder / "tiny" / "1").is_dir():
            # It is there, and a version is written once; the next one removes what was left.
            call([*verb.command[:-1], "--version=2"], top)
            shutil.rmtree(folder / "tiny" / "2")
        else:
            started = verb.name != "train" or (folder / "config.yaml").exists()
            call([*verb.command, *(verb.again if started else ())], top)
    except RuntimeError as error:
        return [str(error)]
    return [f"left: {path}" for path in leftovers(folder)] + [
        f"check: {finding}" for finding in damage(folder)]


class Trial:
    """Cuts of one verb's record."""

    def __init__(self, verb: Verb, top: Path, record: Record):
        self.verb, self.top, self.record = verb, top, record
        self.folder = top / verb.folder
        self.right = outcome(self.folder)
        self.faults: list[str] = []

    def cut(self, count: int, mode: str, seed: int, resume: bool) -> None:
        """Cut the power after so many events, and look at what is there."""
        where = f"{self.verb.name}, {mode}, event {count}, seed {seed}"
        state = self.record.state(count, mode, random.Random(seed))
        write_state(state, self.folder)
        found = [f"lost: {path}" for path in lost(self.record, count, state)]
        found += [f"check: {finding}" for finding in damage(self.folder)]
        if resume:
            found += go_on(self.verb, self.top)
            now = outcome(self.folder)
            found += [f"differs: {path}" for path in sorted({*now, *self.right})
                      if now.get(path) != self.right.get(path)]
        self.faults += [f"{where}: {fault}" for fault in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--resumes", type=int, default=20)
    parser.add_argument("--kills", action="store_true")
    parser.add_argument("--most-kills", type=int, default=0, help="of a verb; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verb", action="append", choices=[verb.name for verb in VERBS])
    options = parser.parse_args()
    rng = random.Random(options.seed)
    wanted = [verb for verb in VERBS if verb.name in (options.verb or [v.name for v in VERBS])]
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        call(["phantom", "{0}/study", "--cases=4", "--seed=1", "--size", "30", "28", "16"], top)
        for verb in VERBS:
            if verb not in wanted and verb.name not in ("prepare", "train"):
                continue
            start = time.monotonic()
            (top / verb.folder).mkdir()
            with recorded(top / verb.folder) as record:
                call(verb.command, top)
            if verb not in wanted:
                continue
            trial = Trial(verb, top, record)
            cuts, resumes = options.cuts // len(wanted), options.resumes // len(wanted)
            places = [rng.randint(0, len(record.events)) for _ in range(cuts)]
            for number, place in enumerate(places):
                trial.cut(place, ("ordered", "worst")[number % 2], rng.randrange(1 << 30),
                          number < resumes)
            kills = [rng.choice(found) for found in record.kinds().values()] * options.kills
            rng.shuffle(kills)
            kills = kills[:options.most_kills or len(kills)]
            for place in kills:
                trial.cut(place, "kill", 0, True)
            write_state(record.state(len(record.events), "kill", rng), top / verb.folder)
            print(f"{verb.name:10} {len(record.events):5} events, {len(places)} power cuts, "
                  f"{min(resumes, cuts)} of them gone on from, {len(kills)} kills: "
                  f"{len(trial.faults)} faults, {time.monotonic() - start:.0f} s", flush=True)
            for fault in trial.faults:
                print(f"  {fault}", flush=True)
            faults += trial.faults
    print("nothing was lost" if not faults else f"{len(faults)} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
