"""The paper's tables of cost, counted again from the models."""

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.models import cost_of, make_model
from benchmarks.paper import TABLES, PaperRow

_WITHOUT_POSITIONS = (
    "the paper leaves out position embeddings and class tokens here; without them our count agrees"
)
_QUOTED = "the paper quotes EfficientNet's authors; the layers of Keras' model add up to more"
_STRIDES = (
    "Keras' ResNet has the stride of a stage in its first 1 × 1 convolution, the paper's in the "
    "3 × 3 convolution, which costs more"
)
# Why a cell differs where the count of positions does not explain it: (name, column) -> text.
_REASONS = {
    ("crossvit_small_all_attention", "parameters"): (
        "the paper does not say enough to rebuild its design: none as plain as equation 2 has "
        "27.7 M parameters and 7.6 GMACs; without position embeddings and class tokens this one "
        "has 26.7 M, so 27.7 may be a misprint"
    ),
    ("crossvit_small_e", "parameters"): (
        "the paper counted its ablations without position embeddings and class tokens (31.155 M "
        "here) and with slightly smaller projections f and g than in the released code"
    ),
    ("ResNet101", "gmacs"): _STRIDES,
    ("ResNet152", "gmacs"): _STRIDES,
    ("ResNet152", "parameters"): "Keras' ResNet has biases in its convolutions",
    ("EfficientNetB4", "gmacs"): _QUOTED,
    ("EfficientNetB5", "gmacs"): _QUOTED,
    ("EfficientNetB6", "gmacs"): _QUOTED,
    ("EfficientNetB7", "gmacs"): _QUOTED,
}
_SHOWN = {  # column of the paper -> heading
    "top1": "top-1, %",
    "large_top1": "large branch alone, %",
    "small_top1": "small branch alone, %",
    "images_per_second": "images/s, V100",
}
_COUNTED = {"gmacs": "GMACs", "parameters": "parameters, M"}


def summarize(
    tables: Mapping[int, tuple[str, Sequence[PaperRow]]] | None = None,
    cost: Callable[[str], Mapping[str, int]] | None = None,
) -> list[dict[str, Any]]:
    """Counts every model of the tables that can be built here and compares it with the paper.

    Args:
        tables: `{number: (title, rows)}`; `benchmarks.paper.TABLES` by default.
        cost: A function from a model's name to what `cost_of` returns; by default it builds the
            model and counts.

    Returns:
        A list of `{"table": number, "title": ..., "rows": [...]}`. A row has `model` (the
        paper's name), `name` (ours, or `None`), `paper` (`{column: text as printed}`) and, if
        there is a name, `parameters` and `macs` (exact) and `cells`:
        `{"gmacs" and "parameters": {"ours", "paper", "agrees", "reason"}}`, where `ours` is
        rounded to the digits that the paper prints and `reason` is `None` if they agree.
    """
    cost = cost or _build_and_count
    known = {}
    summary = []
    for number, (title, rows) in (tables or TABLES).items():
        for row in rows:
            if row.name and row.name not in known:
                known[row.name] = cost(row.name)
        entries = [_entry(row, known.get(row.name)) for row in rows]
        summary.append({"table": number, "title": title, "rows": entries})
    return summary


def _build_and_count(name):
    gc.collect()  # models hold reference cycles: without this all of them would stay in memory
    return cost_of(make_model(name))


def _entry(row, cost):
    entry = {"model": row.label, "name": row.name, "paper": row.columns}
    if cost is None:
        return entry
    positions = cost["position_parameters"]
    cells = {
        "gmacs": _compare(row, "gmacs", cost["macs"] / 1e9),
        "parameters": _compare(
            row, "parameters", cost["parameters"] / 1e6, (cost["parameters"] - positions) / 1e6
        ),
    }
    counts = {"parameters": cost["parameters"], "macs": cost["macs"]}
    return {**entry, **counts, "cells": cells}


def _compare(row, column, ours, without_positions=None):
    """One of our figures beside the paper's, rounded to the same digits."""
    printed = row.columns[column]

    def rounded(value):
        return f"{value:.{len(printed.partition('.')[2])}f}"

    agrees = rounded(ours) == printed
    reason = None
    if not agrees:
        reason = _REASONS.get((row.name, column), "not explained")
        if without_positions is not None and rounded(without_positions) == printed:
            reason = _WITHOUT_POSITIONS
    return {"ours": rounded(ours), "paper": printed, "agrees": agrees, "reason": reason}


def to_markdown(summary: Sequence[Mapping[str, Any]]) -> str:
    """The tables as Markdown: what was counted here, the paper's figures, and why they differ."""
    return "\n".join(_table(**table) for table in summary)


def _table(table, title, rows):
    shown = [column for column in _SHOWN if column in rows[0]["paper"]]
    heads = ["model", "built as"]
    for heading in _COUNTED.values():
        heads += [heading, "the paper's"]
    heads += [f"{_SHOWN[column]}, the paper's" for column in shown]
    reasons = []
    lines = [_line(row, shown, reasons) for row in rows]
    rule = ["---"] * 2 + ["---:"] * (len(heads) - 2)
    notes = [
        f"{number}. {reason[0].upper()}{reason[1:]}." for number, reason in enumerate(reasons, 1)
    ]
    body = "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, rule, *lines))
    return f"## Table {table}: {title}\n\n{body}\n" + "\n".join(["", *notes, ""] if notes else [])


def _line(row, shown, reasons):
    """The cells of a row; new reasons are added to `reasons`."""
    line = [row["model"], f"`{row['name']}`" if row["name"] else "–"]
    for column in _COUNTED:
        cell = row.get("cells", {}).get(column)
        ours = "–"
        if cell is not None:
            ours = cell["ours"]
            if not cell["agrees"]:
                if cell["reason"] not in reasons:
                    reasons.append(cell["reason"])
                ours = f"**{ours}** ({reasons.index(cell['reason']) + 1})"
        line += [ours, row["paper"][column]]
    return line + [row["paper"][column] for column in shown]
