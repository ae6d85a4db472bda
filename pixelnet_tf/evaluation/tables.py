"""A small table, and its four forms: text, Markdown, CSV, LaTeX."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from pixelnet_tf.config import ProtocolName
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.evaluation.calibration import DEFINITIONS as CALIBRATION_DEFINITIONS
from pixelnet_tf.evaluation.calibration import by_name
from pixelnet_tf.evaluation.lesions import LESION_MEASURES, SIZE_CLASSES
from pixelnet_tf.evaluation.summary import SPREAD_ROWS, Evaluation
from pixelnet_tf.io.csv_text import csv_text

FORMATS = ("text", "markdown", "csv", "latex")
#: Decimal places of a measure without unit, and of a length in mm.
_RATIO, _LENGTH = 3, 2
_LENGTHS = ("Hausdorff95", "Hausdorff", "AverageDistance", "LesionHausdorff95")


@dataclass(frozen=True)
class Table:
    """Strings in rows and columns, with a title and notes that explain them."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def render(self, form: str) -> str:
        """Return the table as `text`, `markdown`, `csv` or `latex`, ending with a newline.

        Raises:
            ConfigError: an unknown form.
        """
        if form not in FORMATS:
            raise ConfigError(f"the format must be one of {list(FORMATS)}, got {form!r}",
                              value=form)
        return getattr(self, f"_{form}")()

    def _text(self) -> str:
        table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
        for i, column in enumerate(self.columns):
            table.add_column(column, justify="right" if i and self._numeric(i) else "left",
                             no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        # As wide as it needs: a table that is cut off at 80 columns is of no use in a file.
        sink = io.StringIO()
        width = 4 * len(self.columns) + sum(self._widths()) + 8
        console = Console(file=sink, width=width, color_system=None, markup=False,
                          highlight=False, emoji=False)
        console.print(table)
        body = "\n".join(line.rstrip() for line in sink.getvalue().strip("\n").splitlines())
        return "\n".join([self.title, body, *self.notes]) + "\n"

    def _markdown(self) -> str:
        rule = ["---", *("---:" if self._numeric(i) else "---"
                         for i in range(1, len(self.columns)))]
        lines = [self.columns, rule, *([c.replace("|", "\\|") for c in r] for r in self.rows)]
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        notes = "".join(f"\n{note}\n" for note in self.notes)
        return f"**{self.title}**\n\n{body}\n{notes}"

    def _csv(self) -> str:
        return csv_text([self.columns, *self.rows])

    def _latex(self) -> str:
        align = "l" + "".join("r" if self._numeric(i) else "l"
                              for i in range(1, len(self.columns)))
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{_latex(self.title)}}}",
                 rf"\begin{{tabular}}{{{align}}}", r"\hline",
                 " & ".join(_latex(c) for c in self.columns) + r" \\", r"\hline",
                 *(" & ".join(_latex(c) for c in row) + r" \\" for row in self.rows),
                 r"\hline", r"\end{tabular}", r"\end{table}"]
        notes = [f"% {note}".replace("\n", " ") for note in self.notes]
        return "\n".join([*lines, *notes]) + "\n"

    def _numeric(self, index: int) -> bool:
        return all(row[index][:1] in "+-0123456789[<i" for row in self.rows)

    def _widths(self) -> list[int]:
        return [max([len(column), *(len(row[i]) for row in self.rows)])
                for i, column in enumerate(self.columns)]


def render_all(tables: Sequence[Table], form: str) -> str:
    """Render tables one under the other."""
    return "\n".join(table.render(form) for table in tables)


def number(value: float | None, measure: str, signed: bool = False) -> str:
    """Format a value with the decimal places of its measure; `-` for one that is undefined."""
    if value is None:
        return "-"
    places = _LENGTH if measure in _LENGTHS else _RATIO
    if not round(value, places):
        # Neither -0.000 nor +0.000 says more than 0.000.
        return f"{0:.{places}f}"
    return f"{value:+.{places}f}" if signed else f"{value:.{places}f}"


def spread_table(evaluation: Evaluation, of: str = "") -> Table:
    """All measures of all regions with mean, spread and the number of cases behind each.

    `of` names what was evaluated, where several tables stand together.
    """
    rows = []
    for region in evaluation.regions:
        for measure in evaluation.measures:
            spread = evaluation.spread(region, measure)
            rows.append((region, measure, *(number(spread[key], measure)
                                            for key in SPREAD_ROWS.values()), str(spread["n"])))
    return Table(
        f"Scores{_of(of)} by the {evaluation.protocol} protocol, {len(evaluation.scores)} cases",
        ("Region", "Measure", *SPREAD_ROWS, "n"), tuple(rows), _notes(evaluation))


def missing_tables(evaluation: Evaluation, of: str = "") -> list[Table]:
    """The mean of the first measure by which modalities cases were segmented without.

    No table where every case had all of them; `of` as in `spread_table`.
    """
    missing = evaluation.about.get("missing_modalities") or {}
    if not missing:
        return []
    groups: dict[tuple[str, ...], list[str]] = {}
    for case in evaluation.scores:
        groups.setdefault(tuple(missing.get(case, ())), []).append(case)
    measure, rows = evaluation.measures[0], []
    for group in sorted(groups, key=lambda names: (len(names), names)):
        means = []
        for region in evaluation.regions:
            values = [value for case, value in evaluation.values(region, measure).items()
                      if case in groups[group]]
            means.append(number(sum(values) / len(values) if values else None, measure))
        rows.append((", ".join(group) or "none", str(len(groups[group])), *means))
    return [Table(f"{measure}{_of(of)} by the modalities that are missing, mean",
                  ("Without", "Cases", *evaluation.regions), tuple(rows))]


def lesion_tables(evaluation: Evaluation, of: str = "") -> list[Table]:
    """Lesions found and missed: a table of the cases' measures, one by size over all cases.

    None where an earlier version did not count them; `of` as in `spread_table`.
    """
    if not evaluation.lesion_measures:
        return []
    spreads = [(region, measure, evaluation.spread(region, measure))
               for region in evaluation.regions for measure in evaluation.lesion_measures]
    rows = []
    for region in evaluation.regions:
        counts = evaluation.lesions(region)
        for size, there, found, predicted, wrong in zip(
                SIZE_CLASSES, counts.reference, counts.detected, counts.predicted,
                counts.false_positives, strict=True):
            rows.append((region, size, str(there), str(found),
                         number(found / there if there else None, "LesionSensitivity"),
                         str(predicted), str(wrong),
                         number(wrong / len(evaluation.scores), "FalsePositives")))
    return [
        Table(f"Lesions{_of(of)} found, {len(evaluation.scores)} cases",
              ("Region", "Measure", *SPREAD_ROWS, "n"),
              tuple((region, measure, *(number(spread[key], measure)
                                        for key in SPREAD_ROWS.values()), str(spread["n"]))
                    for region, measure, spread in spreads),
              tuple(f"{measure}: {text}." for measure, text in LESION_MEASURES.items())),
        Table(f"Lesions{_of(of)} by size, all cases together",
              ("Region", "Size", "Reference", "Detected", "Sensitivity", "Predicted",
               "False positives", "a case"), tuple(rows),
              ("A lesion is a 26-connected component; its size is its own, in the reference or in "
               "the prediction.",))]


def agreement_table(evaluation: Evaluation) -> Table | None:
    """Surface Dice, and bias and limits of agreement of volumes, a row for each region.

    None where an earlier version did not measure them.
    """
    if not evaluation.agreement_measures:
        return None
    rows = []
    for region in evaluation.regions:
        volumes = evaluation.volume_agreement(region)
        limits = [number(value, "", True) for value in (volumes.low_ml, volumes.high_ml)]
        rows.append((region, _mean_and_std(evaluation, region, "SurfaceDice"),
                     str(evaluation.spread(region, "SurfaceDice")["n"]),
                     number(volumes.bias_ml, "", True),
                     "-" if volumes.low_ml is None else f"[{', '.join(limits)}]",
                     str(volumes.n)))
    definitions = evaluation.further_definitions
    return Table(
        f"Agreement of surfaces and volumes, {len(evaluation.scores)} cases",
        ("Region", "Surface Dice", "n", "Volume bias (ml)", "Limits of agreement (ml)", "n"),
        tuple(rows),
        (f"Surface Dice: {definitions['SurfaceDice']}.",
         "Volume bias: mean of the prediction's volume less the reference's, over the cases that "
         "have one; limits of agreement: bias -/+ 1.96 standard deviations (Bland and Altman)."))


def calibration_table(evaluation: Evaluation) -> Table | None:
    """Confidence, accuracy and expected calibration error; None without probabilities."""
    calibration = evaluation.calibration
    if calibration is None:
        return None
    rows = []
    for name, found in by_name(calibration).items():
        voxels = sum(found.voxels)
        confidence, accuracy = (
            sum(n * (mean or 0) for n, mean in zip(found.voxels, side, strict=True)) / voxels
            if voxels else None for side in (found.confidence, found.accuracy))
        rows.append((name, str(voxels), number(confidence, ""), number(accuracy, ""),
                     number(found.expected_calibration_error, "")))
    return Table(
        f"Calibration of the probabilities, {calibration.cases} cases",
        ("Probability of", "Voxels", "Mean confidence", "Came true", "Expected calibration error"),
        tuple(rows),
        (f"Voxels: {CALIBRATION_DEFINITIONS['voxels']}.",
         "Expected calibration error: "
         f"{CALIBRATION_DEFINITIONS['expected_calibration_error']}."))


def paper_table(evaluation: Evaluation, of: str = "") -> Table:
    """The form of the paper's Table 1, or of Table 3 (`isles`); `of` as in `spread_table`."""
    n = len(evaluation.scores)
    regions = tuple(evaluation.regions)
    if evaluation.protocol != ProtocolName.ISLES:
        rows = tuple(
            (measure, *(number(evaluation.spread(r, measure)["mean"], measure) for r in regions))
            for measure in evaluation.measures)
        return Table(f"Mean scores{_of(of)}, {n} cases (form of the paper's Table 1)",
                     ("", *regions), rows, _notes(evaluation))
    rows = tuple(
        (region, *(_mean_and_std(evaluation, region, m) for m in evaluation.measures))
        for region in regions)
    return Table(f"Mean and standard deviation{_of(of)}, {n} cases (form of the paper's Table 3)",
                 ("Region", *evaluation.measures), rows, _notes(evaluation))


def _mean_and_std(evaluation: Evaluation, region: str, measure: str) -> str:
    spread = evaluation.spread(region, measure)
    mean, std = number(spread["mean"], measure), number(spread["std"], measure)
    return mean if spread["std"] is None else f"{mean} ± {std}"


def _notes(evaluation: Evaluation) -> tuple[str, ...]:
    notes = [f"{measure}: {definition}." for measure, definition in evaluation.definitions.items()
             if measure in _LENGTHS]
    return (*notes, *emptiness_notes(evaluation), *training_notes(evaluation))


def _of(name: str) -> str:
    return f" of {name}" if name else ""


def training_notes(evaluation: Evaluation, of: str = "") -> tuple[str, ...]:
    """Say how many of the scored cases the network had learned from; nothing where it had none."""
    learned = evaluation.about.get("trained_on", ())
    if not learned:
        return ()
    return (f"The network{of} was trained on, or chosen by, {len(learned)} of the "
            f"{len(evaluation.scores)} cases: their scores say nothing about new cases.",)


def emptiness_notes(evaluation: Evaluation, of: str = "") -> tuple[str, ...]:
    """Say for each region how many masks of which kind were empty; nothing where none was."""
    notes = []
    for region in evaluation.regions:
        empty = {kind: count for kind, count in evaluation.emptiness(region).items()
                 if count and kind != "none_empty"}
        if empty:
            kinds = ", ".join(f"{kind.replace('_', ' ')} {count}" for kind, count in empty.items())
            notes.append(f"Empty masks of {region}{of}: {kinds} "
                         f"(of {len(evaluation.scores)} cases).")
    return tuple(notes)


#: What LaTeX takes for a command, and how it is written.
_LATEX = str.maketrans({
    "\\": r"\textbackslash ", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$",
    "−": "-", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde ",
    "^": r"\textasciicircum ", "\n": " ",
})


def _latex(text: str) -> str:
    return text.translate(_LATEX)
