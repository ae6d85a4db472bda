"""What a race is: its cases, its contestants and their steps, in OUT/race.json."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pixelnet_tf.cases.split import Split, draw_folds
from pixelnet_tf.config import Config, Preset, as_config, preset_settings
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import ConfigError, DataError
from pixelnet_tf.io.files import begin_folder, read_json_as, write_json
from pixelnet_tf.io.plain import build
from pixelnet_tf.io.processor import cpuinfo

#: A network of torch's package, not of this one.
PEER = "nnunet"


@dataclass(frozen=True)
class Job:
    """A contestant on a fold, for a multiple of its steps; `best/0`, or `best/0x4`."""

    contestant: str
    fold: int
    times: int = 1

    @property
    def name(self) -> str:
        return f"{self.contestant}/{self.fold}" + (f"x{self.times}" if self.times > 1 else "")

    @classmethod
    def of(cls, name: str) -> Job:
        """The job of a name; raises `ConfigError`."""
        contestant, _, rest = name.rpartition("/")
        fold, _, times = rest.partition("x")
        if not contestant or not fold.isdigit() or (times and not times.isdigit()):
            raise ConfigError(f"{name!r} is no job", value=name, hint="--list shows them")
        return cls(contestant, int(fold), int(times or 1))


@dataclass(frozen=True)
class Race:
    """Everything that must be the same for all contestants.

    Attributes:
        data: the prepared study. references: studies with the segmentations.
        splits: one for each fold.
        settings: contestant -> overrides of its configuration, as `--set` takes them.
        bases: contestant -> configuration that they are applied to; "" for the peer.
        steps: contestant -> solver steps.
        seconds: contestant -> CPU-seconds a step, where they were measured.
        minutes: CPU-minutes that the steps come from; 0 where they were given.
        validations: times that a training looks at its validation cases, the last step among them.
        precision: number type of the matrix products of every contestant.
        machine: processor and its load when the steps were measured.
    """

    data: str
    references: tuple[str, ...]
    splits: tuple[Split, ...]
    bases: dict[str, str]
    settings: dict[str, tuple[str, ...]]
    steps: dict[str, int]
    seconds: dict[str, float]
    minutes: float
    precision: str
    seed: int
    machine: str
    validations: int = 6

    def write(self, out: Path) -> None:
        begin_folder(out)
        write_json(out / "race.json", asdict(self))

    @classmethod
    def read(cls, out: Path) -> Race:
        if not (out / "race.json").is_file():
            raise DataError("holds no race.json yet", file=out, hint="measure by --time, or give "
                            "--steps")
        return read_json_as(out / "race.json", lambda tree: build(cls, tree), "begin a new folder")

    def jobs(self, times: int = 1, folds: Sequence[int] = ()) -> Iterator[Job]:
        """The jobs of all folds, or of some, fold by fold."""
        for fold in folds or range(len(self.splits)):
            for contestant in self.bases:
                yield Job(contestant, fold, times)

    def steps_of(self, job: Job) -> int:
        """Solver steps of a job."""
        return self.steps[job.contestant] * job.times

    def validate_every(self, job: Job) -> int:
        """Steps from one look at the validation cases to the next."""
        return -(-self.steps_of(job) // self.validations)

    def check(self, job: Job) -> None:
        """Raise `ConfigError` for a job of another race."""
        if job.contestant not in self.bases or job.fold >= len(self.splits):
            raise ConfigError(f"the race has no job {job.name!r}", value=job.name,
                              hint="--list shows them")

    def config(self, contestant: str) -> Config:
        """A contestant's own configuration; the peer takes study and prediction from it."""
        base = self.bases[contestant] or next(iter(filter(None, self.bases.values())), None)
        return race_config(base, self.settings[contestant], self.precision, self.seed)


def race_config(base: str | None, settings: Sequence[str], precision: str, seed: int) -> Config:
    """A configuration without anything that would be decided otherwise than by the race."""
    neutral = ("prediction.prior=sampled", "prediction.guided_filter={radius: 0}",
               "prediction.class_offsets={}", "prediction.flips=false", "prediction.postprocess={}",
               "prediction.decisions=ignore",
               f"prediction.precision={precision}", f"training.precision={precision}",
               f"training.seed={seed}")
    return as_config(base, (*settings, *neutral))


def preset_overrides(preset: str) -> tuple[str, ...]:
    """The settings of a preset but its prediction, as `--set` takes them."""
    import yaml

    found = []
    for setting in preset_settings(Preset(preset)):
        if setting.key.split(".")[0] in ("sampling", "model", "training"):
            text = yaml.safe_dump(setting.value, default_flow_style=True, width=10**6)
            found.append(f"{setting.key}={text.removesuffix(chr(10)).removesuffix('...')}".strip())
    return tuple(found)


def race_splits(study: PreparedStudy, validation: Sequence[str], folds: int, seed: int
                ) -> tuple[Split, ...]:
    """A split for each fold, or one; `validation` names cases that validate all of them.

    Without them the folds, or the split, are the study's own. With them the other cases are cut
    into `folds`, each tested once; with fewer than two folds the study's own test cases stay, and
    what is left is trained on.

    Raises:
        ConfigError: a validation case that the study does not have.
    """
    own = study.split
    if not validation:
        return tuple(own.fold(i) for i in range(len(own.folds))) or (own,)
    unknown = sorted(set(validation) - set(study.cases))
    if unknown:
        raise ConfigError(f"the prepared study has no case {unknown[0]!r} to validate on",
                          value=unknown[0], hint="prepare all cases into one folder")
    kept = tuple(sorted(validation))
    rest = [case for case in study.cases if case not in kept]
    if folds < 2:
        test = tuple(case for case in own.test if case not in kept)
        return (Split(tuple(case for case in rest if case not in test), kept, test),)
    order = [[rest[i]] for i in np.random.default_rng(seed).permutation(len(rest))]
    cut = draw_folds(order, folds)
    return tuple(Split(tuple(sorted(set(rest) - set(part))), kept, part) for part in cut)


def named_cases(source: Path | None) -> list[str]:
    """Names in a text file, one a line, the validation cases of a split's JSON, or the folders of a
    study."""
    if source is None:
        return []
    if source.suffix == ".json":
        return list(read_json_as(source, Split.from_json, "give a text file of names").validation)
    if source.is_dir():
        return sorted(path.name for path in source.iterdir() if path.is_dir())
    return source.read_text(encoding="utf-8").split()


def machine() -> str:
    """The processor, its cores, and the load at the moment."""
    name = cpuinfo().get("model name") or platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
