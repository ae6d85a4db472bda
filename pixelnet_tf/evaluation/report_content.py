"""What a report says, drawn from a run's files and its scores: tables, figures, sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pixelnet_tf.cases.split import Split
from pixelnet_tf.config import StudyConfig, yaml_tree
from pixelnet_tf.errors import DataError
from pixelnet_tf.evaluation.comparison import PAPER_MEASURES
from pixelnet_tf.evaluation.labels import read_labels
from pixelnet_tf.evaluation.summary import Evaluation
from pixelnet_tf.evaluation.tables import Table, number
from pixelnet_tf.io.files import read_json_as, read_text
from pixelnet_tf.io.plain import build

T = TypeVar("T")

#: What a reader asks first of a configuration; keys as in the YAML file.
_HEADLINES = (
    "study.modalities", "prepare.bias_field.enabled", "prepare.region", "prepare.slice_size",
    "sampling.strategy", "sampling.pixels", "model.widths", "model.fc7", "model.head",
    "model.head_widths", "training.initial_weights", "training.steps", "training.epochs",
    "training.batch_slices", "training.solver.type", "training.solver.base_lr",
    "training.solver.lr_policy",
    "training.seed", "prediction.prior",
)


def configuration_text(run_dir: Path) -> str:
    """Return RUN/config.yaml as it is, empty where there is none."""
    path = Path(run_dir) / "config.yaml"
    return read_text(path) if path.is_file() else ""


def headline_table(configuration: str) -> Table | None:
    """Return the settings that tell runs apart; None without a configuration."""
    tree = yaml_tree(configuration, "the run's config.yaml")
    rows = []
    for key in _HEADLINES:
        node: Any = tree
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if node is not None:
            text = ", ".join(map(str, node)) if isinstance(node, list) else str(node)
            rows.append((key, text))
    return Table("Settings", ("Setting", "Value"), tuple(rows)) if rows else None


def split_table(run_dir: Path, scored: int) -> Table:
    """Count the cases of each part of the split that the run was trained on."""
    # `prepare` keeps the split beside what it was drawn from.
    split = _stored(run_dir, "split.json", lambda tree: Split.from_json(
        tree["split"] if isinstance(tree, dict) and "split" in tree else tree))
    rows = [] if split is None else [(part, str(len(getattr(split, part))))
                                     for part in ("train", "validation", "test")]
    return Table("Cases", ("Part", "Cases"), (*rows, ("scored here", str(scored))))


def class_frequencies(
    run_dir: Path, pairs: Mapping[str, tuple[Path, Path]], study: StudyConfig
) -> Table:
    """Compare class frequencies: in training, as sampled, in truth and prediction.

    Args:
        run_dir: its `priors.json` gives the first two, where there is one.
        pairs: case -> (reference file, prediction file).
        study: classes in the order of their indices.
    """
    columns: list[tuple[str, np.ndarray]] = []
    priors = _stored(run_dir, "priors.json", lambda tree: build(_Frequencies, tree))
    for name, side in (("Training slices", priors.real), ("Sampled pixels", priors.sampled)
                       ) if priors else ():
        if len(side) != len(study.labels):
            raise DataError(f"{run_dir}: priors.json gives {len(side)} frequencies, the study has "
                            f"{len(study.labels)} labels; name the run that predicted")
        columns.append((name, np.array(side)))
    counts = np.zeros((2, len(study.labels)))
    for case, paths in pairs.items():
        for side, path in enumerate(paths):
            labels, _ = read_labels(path, study, case, allow_float=side == 0)
            found = np.bincount(labels.ravel(order="K"), minlength=256)
            counts[side] += found[list(study.label_values)]
    columns += [("Truth, scored cases", counts[0] / max(counts[0].sum(), 1)),
                ("Predicted, scored cases", counts[1] / max(counts[1].sum(), 1))]
    rows = tuple(
        (name, str(value), *(f"{100 * frequency[index]:.3f}%" for _, frequency in columns))
        for index, (value, name) in enumerate(study.labels.items()))
    return Table("Class frequencies", ("Class", "Label", *(name for name, _ in columns)), rows)


def ranked_cases(evaluation: Evaluation) -> list[tuple[str, float]]:
    """Return (case, mean Dice over the regions), the worst first."""
    means = {case: float(np.mean([score.values["Dice"] for score in by_region.values()]))
             for case, by_region in evaluation.scores.items()}
    return sorted(means.items(), key=lambda item: (item[1], item[0]))


def case_table(evaluation: Evaluation) -> Table:
    """Every case in the measures that the paper compares, the worst first."""
    measures = PAPER_MEASURES[evaluation.protocol]
    columns = [(m, r) for m in measures for r in evaluation.regions]
    several = len(evaluation.regions) > 1
    rows = tuple(
        (case, f"{mean:.3f}",
         *(number(evaluation.scores[case][r].values[m], m) for m, r in columns))
        for case, mean in ranked_cases(evaluation))
    return Table("Cases, the worst first",
                 ("Case", "Mean Dice", *(f"{m} {r}" if several else m for m, r in columns)), rows)


@dataclass(frozen=True)
class _Frequencies:
    """What priors.json holds."""

    class_names: tuple[str, ...]
    real: tuple[float, ...]
    sampled: tuple[float, ...]
    strength: float = 1.0


def _stored(run_dir: Path, name: str, make: Callable[[Any], T]) -> T | None:
    """What a JSON file of a run holds, or None where there is none."""
    path = Path(run_dir) / name
    return read_json_as(path, make, "remove it or train again") if path.is_file() else None
