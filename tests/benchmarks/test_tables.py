"""The paper's tables of cost: cells, reasons, Markdown, and the page that holds them."""

import json
import re

import keras
import pytest

import keras_crossvit as kc
from benchmarks.paper import TABLES, paper_top1
from benchmarks.tables import summarize, to_markdown
from tests import base
from tests.benchmarks.rows import cost, paper_row
from tests.paper.test_tables import ROWS

TABLES_PAGE = base.ROOT / "docs" / "tables.md"


def cells(name, gmacs, parameters, cost):
    """The compared cells of a one-row table."""
    tables = {9: ("A title", [paper_row(name, gmacs, parameters)])}
    ((entry,),) = ((table["rows"]) for table in summarize(tables, lambda _: cost))
    return entry["cells"]


def test_cells_are_rounded_as_the_paper_rounds():
    found = cells("x", "9.03", "19", cost(19_341_616, 9_031_158_528))
    assert found["gmacs"] == {"ours": "9.03", "paper": "9.03", "agrees": True, "reason": None}
    assert found["parameters"]["ours"] == "19"
    assert found["parameters"]["agrees"]


def test_cells_that_differ_say_why():
    counted = cost(7_014_800, 1_562_734_080, positions=76_608)
    found = cells("crossvit_tiny", "1.6", "6.9", counted)["parameters"]
    assert (found["ours"], found["agrees"]) == ("7.0", False)
    assert "leaves out position embeddings and class tokens" in found["reason"]
    # Differs both with and without positions, and nobody knows why.
    found = cells("x", "1.7", "6.8", counted)
    assert found["gmacs"]["reason"] == found["parameters"]["reason"] == "not explained"
    # Reasons that counting alone cannot give are known by name.
    counted = cost(31_308_176, 6_598_863_360, positions=153_216)
    assert (
        "smaller projections"
        in cells("crossvit_small_e", "6.6", "31.1", counted)["parameters"]["reason"]
    )


def test_models_are_counted_once_and_others_are_the_papers():
    asked = []

    def count(name):
        asked.append(name)
        return cost(1_000_000, 2_000_000_000)

    rows = [paper_row("x", "2.0", "1.0"), paper_row(None, "–", "43.9", "Perceiver")]
    tables = summarize({1: ("One", rows), 2: ("Two", rows)}, count)
    assert asked == ["x"]
    assert [table["table"] for table in tables] == [1, 2]
    entry = tables[0]["rows"][1]
    assert entry == {"model": "Perceiver", "name": None, "paper": rows[1].columns}
    json.dumps(tables)


def test_markdown():
    rows = [paper_row("x", "2.0", "0.9"), paper_row(None, "–", "43.9", "Perceiver")]
    counted = cost(1_000_000, 2_000_000_000, positions=100_000)
    lines = to_markdown(summarize({9: ("A title", rows)}, lambda _: counted))
    lines = lines.splitlines()
    assert lines[0] == "## Table 9: A title"
    assert lines[2].startswith(
        "| model | built as | GMACs | the paper's | parameters, M | the pap"
    )
    assert lines[4] == "| a model | `x` | 2.0 | 2.0 | **1.0** (1) | 0.9 | 70.0 |"
    assert lines[5] == "| Perceiver | – | – | – | – | 43.9 | 70.0 |"
    assert lines[7].startswith("1. The paper leaves out position embeddings")


@pytest.mark.parametrize("name", ["deit_tiny", "crossvit_tiny", "crossvit_9_dagger"])
def test_rows_of_built_models_stand_in_the_page(name):
    """What the command counts is what `docs/tables.md` says, in every table that has the model."""
    tables = {
        number: (title, [row for row in rows if row.name == name])
        for number, (title, rows) in TABLES.items()
        if any(row.name == name for row in rows)
    }
    page = TABLES_PAGE.read_text(encoding="utf-8")
    summary = summarize(tables)
    exact = next(row for row in ROWS if row[0] == name)
    for table in summary:
        (row,) = table["rows"]
        assert (row["parameters"], row["macs"]) == (int(exact[1]), int(exact[2]))
    for line in to_markdown(summary).splitlines():
        # The number of a footnote depends on the rest of the table.
        pattern = re.escape(line).replace(r"\(1\)", r"\(\d+\)").replace("1\\. ", r"\d+\. ")
        assert re.search(f"^{pattern}$", page, re.MULTILINE), line


def test_the_page_holds_every_row_and_explains_every_difference():
    page = TABLES_PAGE.read_text(encoding="utf-8")
    assert "not explained" not in page
    for number, (title, rows) in TABLES.items():
        section = page.partition(f"## Table {number}: {title}\n")[2].partition("\n## ")[0]
        labels = re.findall(r"^\| ([^|]+) \| [`–]", section, re.MULTILINE)
        assert labels == [row.label for row in rows]
        for mark in re.findall(r"\*\* \((\d+)\)", section):
            assert re.search(rf"^{mark}\. \w", section, re.MULTILINE)


def test_tables_and_the_exact_counts_agree_on_what_the_paper_prints():
    """The paper's figures are typed twice: here and in tests/paper/test_tables.py."""
    printed = {name: (params.strip("*"), macs) for name, _, _, params, macs in ROWS}
    for _, rows in TABLES.values():
        for row in rows:
            if row.name in printed and row.columns["gmacs"] != "9.03":
                assert printed[row.name] == (row.columns["parameters"], row.columns["gmacs"])


def test_every_name_of_the_tables_can_be_built():
    names = {row.name for _, rows in TABLES.values() for row in rows if row.name}
    presets = {name.partition("@")[0] for name in names} & set(kc.presets())
    others = {name for name in names if name.partition("@")[0] not in presets}
    assert len(presets) == 27
    assert {name for name in others if not hasattr(keras.applications, name)} == set()
    assert base.PRESETS - presets == {
        "crossvit_small_no_class_token",
        "crossvit_18_t2t",
        "crossvit_digits",
    }


def test_accuracies_of_the_paper():
    assert paper_top1("crossvit_15_dagger@408") == 83.5
    assert paper_top1("EfficientNetB7") == 84.3
    assert paper_top1("crossvit_digits") is None
