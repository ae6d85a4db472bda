"""The four forms of a table, and the paper's tables made of known scores."""

from __future__ import annotations

import csv
import io

import pytest

from pixelnet_tf.errors import ConfigError
from pixelnet_tf.evaluation.protocols import BratsProtocol, IslesProtocol, RegionScore
from pixelnet_tf.evaluation.summary import Evaluation
from pixelnet_tf.evaluation.tables import Table, number, paper_table, render_all, spread_table

TABLE = Table("Title & more", ("Model", "Dice_ET"), (("a|b", "0.5"), ("c", "0.75 ± 0.1")),
              ("A note.",))


def test_markdown():
    assert TABLE.render("markdown") == (
        "**Title & more**\n\n| Model | Dice_ET |\n| --- | ---: |\n| a\\|b | 0.5 |\n"
        "| c | 0.75 ± 0.1 |\n\nA note.\n")


def test_csv_reads_back():
    assert list(csv.reader(io.StringIO(TABLE.render("csv")))) == [
        ["Model", "Dice_ET"], ["a|b", "0.5"], ["c", "0.75 ± 0.1"]]


@pytest.mark.parametrize("name", ["=1+1", "=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "-x",
                                  "\t=1", " =1", "＝1", "-0.5 ± =1"])
def test_no_cell_of_csv_is_a_formula(name):
    (column, _), (cell, _) = csv.reader(io.StringIO(
        Table("T", (name, "x"), ((name, "1"),)).render("csv")))
    assert column == cell == "'" + name


@pytest.mark.parametrize("cell", ["-0.5", "+0.012", "-", "-1e-05", "-inf", "-0.100 ± 0.020",
                                  "-0.100 (n=5)", "0.5", "a-b", "[-0.1, +0.2]", "<0.001", ""])
def test_numbers_and_words_of_csv_stay_as_they_are(cell):
    _, (_, read) = csv.reader(io.StringIO(Table("T", ("x", "y"), (("z", cell),)).render("csv")))
    assert read == cell


def test_latex_takes_no_command_from_a_name():
    text = Table("T", ("x", "y"), ((r"\input{/etc/passwd}$x^2$~", "1"),), ("a\n\\b",)
                 ).render("latex")
    assert (r"\textbackslash input\{/etc/passwd\}\$x\textasciicircum 2\$\textasciitilde  & 1"
            in text)
    assert text.endswith("% a \\b\n")


def test_latex_is_escaped():
    text = TABLE.render("latex")
    assert r"\caption{Title \& more}" in text
    assert r"Model & Dice\_ET \\" in text
    assert r"c & 0.75 $\pm$ 0.1 \\" in text
    assert r"\begin{tabular}{lr}" in text


def test_text_is_never_cut_off():
    wide = Table("T", ("x" * 90, "y" * 90), (("1", "2"),))
    assert "x" * 90 in wide.render("text")
    assert "y" * 90 in wide.render("text")


def test_unknown_form():
    with pytest.raises(ConfigError, match=r"text.*got 'html'"):
        TABLE.render("html")


def test_tables_are_set_apart():
    assert render_all([TABLE, TABLE], "csv").count("Model,Dice_ET") == 2


@pytest.mark.parametrize(("value", "measure", "signed", "expected"), [
    (0.70149, "Dice", False, "0.701"), (11.9214, "Hausdorff95", False, "11.92"),
    (0.1, "Dice", True, "+0.100"), (-0.0001, "Dice", True, "0.000"), (None, "Dice", False, "-"),
])
def test_number(value, measure, signed, expected):
    assert number(value, measure, signed) == expected


def _evaluation(protocol, regions, values, kind="none_empty"):
    scores = {case: {r: RegionScore(kind, dict.fromkeys(protocol.measures, v),
                                    dict.fromkeys(protocol.measures, True)) for r in regions}
              for case, v in values.items()}
    return Evaluation.of(protocol, regions, scores)


def test_form_of_table_1():
    table = paper_table(_evaluation(BratsProtocol(), {"ET": (4,), "WT": (1, 2, 4), "TC": (1, 4)},
                                    {"a": 0.25, "b": 0.75}))
    assert table.columns == ("", "ET", "WT", "TC")
    assert [row[0] for row in table.rows] == ["Dice", "Sensitivity", "Specificity",
                                              "Hausdorff95", "Precision"]
    assert table.rows[0][1:] == ("0.500",) * 3
    assert table.rows[3][1:] == ("0.50",) * 3


def test_form_of_table_3():
    table = paper_table(_evaluation(IslesProtocol(), {"lesion": (1,)}, {"a": 1.0, "b": 3.0}))
    assert table.columns == ("Region", "Dice", "Hausdorff", "AverageDistance", "Precision",
                             "Recall")
    assert table.rows == (("lesion", "2.000 ± 1.414", "2.00 ± 1.41", "2.00 ± 1.41",
                           "2.000 ± 1.414", "2.000 ± 1.414"),)


def test_counts_of_empty_masks_stand_beside_the_means():
    table = spread_table(_evaluation(BratsProtocol(), {"ET": (4,)}, {"a": 0.0, "b": 0.0},
                                     "reference_empty"))
    assert "Empty masks of ET: reference empty 2 (of 2 cases)." in table.notes
    assert table.rows[0][-1] == "2"
