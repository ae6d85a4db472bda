"""One self-contained HTML file about a run, and its figures as PNG files beside it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from pixelnet_tf import __version__
from pixelnet_tf.config import StudyConfig
from pixelnet_tf.evaluation import report_content as content
from pixelnet_tf.evaluation.canvas import write_png
from pixelnet_tf.evaluation.case_images import ImageReader
from pixelnet_tf.evaluation.labels import read_labels
from pixelnet_tf.evaluation.matching import Matching
from pixelnet_tf.evaluation.overlay import overlay_figure
from pixelnet_tf.evaluation.plots import box_plots, training_curves
from pixelnet_tf.evaluation.summary import Evaluation
from pixelnet_tf.evaluation.tables import Table, paper_table, spread_table
from pixelnet_tf.io.files import read_json_lines, write_text

_TEMPLATE = "report.html.j2"


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
        run_dir: configuration, log, priors and split; whatever is absent is left out.
        evaluation: scores of the predictions.
        matching: files of the scored cases.
        study: classes and regions.
        read_image: gives the picture under an overlay; None leaves the overlays out.
    """

    run_dir: Path
    evaluation: Evaluation
    matching: Matching
    study: StudyConfig
    read_image: ImageReader | None = None


def write_report(source: ReportSource, out: Path, overlays: int = 3) -> list[Path]:
    """Write the report and its figures.

    Args:
        source: what it is made from.
        out: the HTML file; figures go to the folder `<stem>_figures` beside it.
        overlays: how many of the worst and of the best cases are pictured.

    Returns:
        The HTML file, then the PNG files.

    Raises:
        DataError: a volume that cannot be read.
    """
    template = _template()
    out = Path(out)
    figures_dir = out.with_name(f"{out.stem}_figures")
    figures_dir.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def picture(name: str, caption: str, figure: Figure) -> Picture:
        path = figures_dir / f"{name}.png"
        write_png(figure, path)
        written.append(path)
        return Picture(path.name, caption, base64.b64encode(path.read_bytes()).decode())

    configuration = content.configuration_text(source.run_dir)
    rows = read_json_lines(source.run_dir / "log.jsonl")
    evaluation = source.evaluation
    pairs = {case: paths for case, paths in source.matching.pairs.items()
             if case in evaluation.scores}
    page = template.render(
        title=Path(source.run_dir).resolve().name,
        version=__version__,
        study=source.study.name,
        cases=len(evaluation.scores),
        protocol=evaluation.protocol,
        settings=content.headline_table(configuration),
        configuration=configuration,
        data_tables=[content.split_table(source.run_dir, len(evaluation.scores)),
                     content.class_frequencies(source.run_dir, pairs, source.study)],
        curves=picture("training", "Loss, learning rate and validation scores over the steps.",
                       training_curves(rows)) if rows else None,
        score_tables=[paper_table(evaluation), spread_table(evaluation)],
        definitions=evaluation.definitions,
        missing=source.matching.missing,
        boxes=picture("scores", "Quartiles, with whiskers up to 1.5 times their distance; "
                      "a point is a case.", box_plots({"scores": evaluation})),
        case_table=content.case_table(evaluation),
        overlays=[picture(f"overlay_{case}", caption, figure) for case, caption, figure
                  in _overlays(source, overlays)],
    )
    write_text(out, page)
    return [out, *written]


def _overlays(source: ReportSource, count: int):
    """Yield (case, caption, figure) of the worst and the best cases, drawn one at a time."""
    if source.read_image is None:
        return
    ranked = [item for item in content.ranked_cases(source.evaluation)
              if item[0] in source.matching.pairs]
    best = max(len(ranked) - count, min(count, len(ranked)))
    chosen = [(case, f"worst {place + 1}") for place, (case, _) in enumerate(ranked[:count])]
    chosen += [(case, f"best {len(ranked) - best - place}")
               for place, (case, _) in enumerate(ranked[best:])]
    for case, rank in chosen:
        shown = source.read_image(case)
        if shown is None:
            continue
        reference, prediction = source.matching.pairs[case]
        truth, geometry = read_labels(reference, source.study, case, allow_float=True)
        predicted, _ = read_labels(prediction, source.study, case)
        dice = {region: score.values["Dice"]
                for region, score in source.evaluation.scores[case].items()}
        yield case, f"{case} ({rank} by mean Dice)", overlay_figure(
            shown, truth, predicted, geometry, source.study, case, dice)


def _template():
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.tests["numeric"] = _is_numeric
    return environment.get_template(_TEMPLATE)


def _is_numeric(column: int, table: Table) -> bool:
    """Tell whether a column of a table is set right-aligned."""
    return column > 0 and all(row[column][:1] in "+-0123456789[<i" for row in table.rows)
