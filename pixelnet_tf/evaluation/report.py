"""One self-contained HTML file about a run, and its figures as PNG files beside it.

What the report says (tables and sentences) is drawn from a run's files and its scores.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jinja2
import numpy as np
from matplotlib.figure import Figure

from pixelnet_tf import __version__
from pixelnet_tf.cases.class_priors import ClassPriors
from pixelnet_tf.cases.labels import judged_alone
from pixelnet_tf.cases.split import Split
from pixelnet_tf.config import StudyConfig, yaml_tree
from pixelnet_tf.errors import DataError
from pixelnet_tf.evaluation.canvas import write_png
from pixelnet_tf.evaluation.case_images import CaseImage, ImageReader
from pixelnet_tf.evaluation.comparison import PAPER_MEASURES
from pixelnet_tf.evaluation.label_files import read_labels
from pixelnet_tf.evaluation.layers import embedded_case, legend
from pixelnet_tf.evaluation.matching import Matching
from pixelnet_tf.evaluation.overlay import overlay_figure
from pixelnet_tf.evaluation.plots import (
    box_plots,
    rate_curves,
    reliability,
    training_curves,
    volume_agreement,
)
from pixelnet_tf.evaluation.summary import Evaluation
from pixelnet_tf.evaluation.tables import (
    Table,
    agreement_table,
    calibration_table,
    lesion_tables,
    missing_tables,
    number,
    paper_table,
    spread_table,
)
from pixelnet_tf.io.files import (
    check_file_name,
    digest,
    file_digest,
    read_json_as,
    read_json_lines,
    read_text,
    write_text,
)
from pixelnet_tf.page import read_page
from pixelnet_tf.reporting import logger
from pixelnet_tf.runs.rate_trial import RateTrial
from pixelnet_tf.volumes.geometry import VolumeGeometry

_TEMPLATE = "report.html.j2"
#: Digits of a SHA-256 that tell contents apart for a reader.
_DIGITS = 12
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


@dataclass(frozen=True)
class Picture:
    """A figure of the report: its file's name, what it shows, and its bytes for the HTML."""

    name: str
    caption: str
    data: str


@dataclass(frozen=True)
class ReportSource:
    """Everything that a report is made from.

    Attributes:
        run_dir: configuration, log, priors and split, or those of each fold of a
            cross-validation; whatever is absent is left out.
        evaluation: scores of the predictions.
        matching: files of the scored cases.
        study: classes and regions.
        read_image: gives the picture under an overlay; None leaves the overlays out.
        out_of_fold: scores of a cross-validation, where the evaluation is another one.
        held_out: the evaluation itself is that one.
    """

    run_dir: Path
    evaluation: Evaluation
    matching: Matching
    study: StudyConfig
    read_image: ImageReader | None = None
    out_of_fold: Evaluation | None = None
    held_out: bool = False

    @property
    def trainings(self) -> dict[str, Path]:
        """Where a training's files lie: the run, or what its folds are called -> theirs."""
        folds = [path for path in Path(self.run_dir).glob("fold_*")
                 if re.fullmatch(r"fold_[0-9]{1,6}", path.name)]
        if not folds or (Path(self.run_dir) / "config.yaml").is_file():
            return {"": self.run_dir}
        return {path.name.replace("_", " "): path for path in
                sorted(folds, key=lambda path: int(path.name.partition("_")[2]))}


def write_report(source: ReportSource, out: Path, overlays: int = 3, viewers: bool = True
                 ) -> list[Path]:
    """Write the report and its figures.

    Args:
        source: what it is made from.
        out: the HTML file; figures go to the folder `<stem>_figures` beside it.
        overlays: how many of the worst and of the best cases are pictured.
        viewers: whether the worst, the median and the best case can be scrolled through.

    Returns:
        The HTML file, then the PNG files.

    Raises:
        DataError: a label volume that cannot be read.
    """
    template = _template()
    out = Path(out)
    check_file_name(out)
    figures_dir = out.with_name(f"{out.stem}_figures")
    written: list[Path] = []

    def picture(name: str, caption: str, figure: Figure) -> Picture:
        path = figures_dir / f"{name}.png"
        write_png(figure, path)
        written.append(path)
        return Picture(path.name, caption, base64.b64encode(path.read_bytes()).decode())

    trainings = source.trainings
    first, own = next(iter(trainings.items()))
    configuration = configuration_text(own)
    curves = []
    for name, folder in trainings.items():
        place, of = (f"_{name.replace(' ', '_')}", f"{name}: ") if name else ("", "")
        if rows := read_json_lines(folder / "log.jsonl"):
            words = f"{of}loss, learning rate and validation scores over the steps."
            curves.append(picture(f"training{place}", words[0].upper() + words[1:],
                                  training_curves(rows)))
        if trial := _stored(folder, "learning_rate.json", RateTrial.from_json):
            words = f"{of}{trial.describe()}."
            curves.append(picture(f"learning_rate{place}", words[0].upper() + words[1:],
                                  rate_curves(trial)))
    evaluation = source.evaluation
    calibration = evaluation.calibration
    pairs = {case: paths for case, paths in source.matching.pairs.items()
             if case in evaluation.scores}
    page = template.render(
        title=source.study.name,
        run=Path(source.run_dir).resolve().name,
        held_out=source.held_out,
        folds=len(trainings) if first else 0,
        version=__version__,
        cases=len(evaluation.scores),
        protocol=evaluation.protocol,
        settings=headline_table(configuration),
        configuration=configuration,
        data_tables=[split_table(source.run_dir, len(evaluation.scores)),
                     class_frequencies(own, pairs, source.study, first),
                     *origin_tables(trainings, evaluation)],
        curves=curves,
        score_tables=[paper_table(evaluation), spread_table(evaluation)],
        fold_tables=[make(source.out_of_fold, "out of fold") for make in
                     (paper_table, spread_table)] if source.out_of_fold else [],
        lesion_tables=[*missing_tables(evaluation), *lesion_tables(evaluation)],
        agreement_table=agreement_table(evaluation),
        definitions={**evaluation.definitions, **evaluation.further_definitions},
        missing=source.matching.missing,
        boxes=picture("scores", "Quartiles, with whiskers up to 1.5 times their distance; "
                      "a point is a case.", box_plots({"scores": evaluation})),
        volumes=picture("volumes", "Volumes of prediction and reference (Bland and Altman); a "
                        "point is a case.", volume_agreement(evaluation)
                        ) if evaluation.agreement_measures else None,
        calibration_table=calibration_table(evaluation),
        reliability=picture("calibration", "What was held for probable, and how often it came "
                            "true; below the line the network is too sure.",
                            reliability(calibration)) if calibration else None,
        case_table=case_table(evaluation),
        overlays=[picture(f"overlay_{case}", caption, figure) for case, caption, figure
                  in _overlays(source, overlays)],
        viewers=list(_viewers(source)) if viewers else [],
        script=read_page("viewer.js").decode(),
    )
    write_text(out, page)
    return [out, *written]


def _ranked(source: ReportSource) -> list[tuple[str, float]]:
    """Cases that can be shown and their mean Dice, the worst first; none without images."""
    if source.read_image is None:
        return []
    return [item for item in ranked_cases(source.evaluation) if item[0] in source.matching.pairs]


def _read_case(source: ReportSource, case: str
               ) -> tuple[CaseImage, np.ndarray, np.ndarray, VolumeGeometry] | None:
    """Image, true and predicted labels and the grid of all three; None where there is no image.

    One that cannot be read or does not lie where the labels lie is none, and a warning says why.
    """
    if source.read_image is None:
        return None
    reference, prediction = source.matching.pairs[case]
    truth, geometry = read_labels(reference, source.study, case, reference=True)
    predicted, _ = read_labels(prediction, source.study, case)
    try:
        shown = source.read_image(case, geometry)
    except DataError as error:
        logger.warning("the report has no picture of this case: %s", error)
        return None
    return None if shown is None else (shown, truth, predicted, geometry)


def _overlays(source: ReportSource, count: int) -> Iterator[tuple[str, str, Figure]]:
    """Yield (case, caption, figure) of the worst and the best cases, drawn one at a time."""
    ranked = _ranked(source)
    best = max(len(ranked) - count, min(count, len(ranked)))
    chosen = [(case, f"worst {place + 1}") for place, (case, _) in enumerate(ranked[:count])]
    chosen += [(case, f"best {len(ranked) - best - place}")
               for place, (case, _) in enumerate(ranked[best:])]
    for case, rank in chosen:
        if (read := _read_case(source, case)) is None:
            continue
        shown, truth, predicted, geometry = read
        dice = {region: value for region, score in source.evaluation.scores[case].items()
                if (value := score.values["Dice"]) is not None}
        yield case, f"{case} ({rank} by mean Dice)", overlay_figure(
            shown, truth, predicted, geometry, source.study, case, dice)


def _viewers(source: ReportSource) -> Iterator[dict[str, Any]]:
    """Yield what the viewers of the worst, the median and the best case show."""
    ranked = _ranked(source)
    if not ranked:
        return
    places = {len(ranked) - 1: "best", len(ranked) // 2: "median", 0: "worst"}
    for place, rank in sorted(places.items()):
        case, mean = ranked[place]
        if (read := _read_case(source, case)) is None:
            continue
        shown, truth, predicted, geometry = read
        yield {"title": f"{case} ({rank}, mean Dice {mean:.3f})", "study": {
            **legend(source.study), "name": case,
            "layers": embedded_case(shown, truth, predicted, geometry, source.study)}}


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.tests["numeric"] = _is_numeric
    environment.filters["source_hash"] = _source_hash
    return environment.get_template(_TEMPLATE)


def _source_hash(text: str) -> str:
    """What a policy (CSP) names a script or a sheet in the page by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _is_numeric(column: int, table: Table) -> bool:
    """Tell whether a column of a table is set right-aligned."""
    return column > 0 and all(row[column][:1] in "+-0123456789[<i" for row in table.rows)


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


def origin_tables(trainings: Mapping[str, Path], evaluation: Evaluation) -> list[Table]:
    """Name by content (SHA-256) what the report is made from; no table where nothing is known."""
    about = evaluation.about
    rows = [(f"model.keras of {name or 'the run'}", file_digest(folder / "model.keras")[:_DIGITS])
            for name, folder in trainings.items() if (folder / "model.keras").is_file()]
    if predicted_by := about.get("predicted_by"):
        rows += [(f"weights of the network {number}", (weights or "unknown")[:_DIGITS])
                 for number, weights in enumerate(predicted_by["networks"], start=1)]
        rows.append(("prior, mode", f"{predicted_by['prior']}, {predicted_by['mode']}"))
    if made_from := about.get("made_from"):
        rows.append(("references and predictions", digest(made_from)[:_DIGITS]))
    return [Table("Made from", ("What", "Content"), tuple(rows))] if rows else []


def class_frequencies(
    run_dir: Path, pairs: Mapping[str, tuple[Path, Path]], study: StudyConfig, fold: str = ""
) -> Table:
    """Compare class frequencies: in training, as sampled, in truth and prediction.

    Args:
        run_dir: its `priors.json` gives the first two, where there is one.
        pairs: case -> (reference file, prediction file).
        study: classes in the order of their indices.
        fold: what the training is called, where it is one of several.
    """
    columns: list[tuple[str, np.ndarray]] = []
    priors = _stored(run_dir, "priors.json", ClassPriors.from_json)
    for name, side in (("Training slices", priors.real), ("Sampled pixels", priors.sampled)
                       ) if priors else ():
        if len(side) != len(study.labels):
            raise DataError(f"priors.json gives {len(side)} frequencies, the study has "
                            f"{len(study.labels)} labels", file=run_dir,
                            hint="name the run that predicted")
        columns.append((f"{name}, {fold}" if fold else name, np.array(side)))
    counts = np.zeros((2, len(study.labels)))
    for case, (reference, prediction) in pairs.items():
        truth, predicted, ignored = judged_alone(
            read_labels(reference, study, case, reference=True)[0],
            read_labels(prediction, study, case)[0], study)
        for place, labels in enumerate((truth, predicted)):
            found = np.bincount(labels.ravel(order="K"), minlength=256)
            counts[place] += found[list(study.label_values)]
        counts[:, 0] -= ignored
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


def _stored(run_dir: Path, name: str, make: Callable[[Any], T]) -> T | None:
    """What a JSON file of a run holds, or None where there is none."""
    path = Path(run_dir) / name
    return read_json_as(path, make, "remove it or train again") if path.is_file() else None
