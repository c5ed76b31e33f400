"""Tables of cost, models by name, measurements and figure 1; nothing here looks at a clock."""

import json
import re

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit import benchmark
from keras_crossvit.benchmark import speed
from keras_crossvit.benchmark.paper import TABLES, PaperRow
from tests import base
from tests.paper.test_tables import ROWS

TABLES_PAGE = base.ROOT / "docs" / "tables.md"


def paper_row(name, gmacs, parameters, label="a model"):
    return PaperRow(label, name, {"top1": "70.0", "gmacs": gmacs, "parameters": parameters})


def cells(name, gmacs, parameters, cost):
    """The compared cells of a table of one row."""
    tables = {9: ("A title", [paper_row(name, gmacs, parameters)])}
    ((entry,),) = ((table["rows"]) for table in benchmark.summarize(tables, lambda _: cost))
    return entry["cells"]


def cost(parameters, macs, positions=0):
    return {"parameters": parameters, "macs": macs, "position_parameters": positions}


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
    # Neither with nor without positions, and nobody knows why.
    found = cells("x", "1.7", "6.8", counted)
    assert found["gmacs"]["reason"] == found["parameters"]["reason"] == "not explained"
    # What counting alone does not tell is known by name.
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
    tables = benchmark.summarize({1: ("One", rows), 2: ("Two", rows)}, count)
    assert asked == ["x"]
    assert [table["table"] for table in tables] == [1, 2]
    entry = tables[0]["rows"][1]
    assert entry == {"model": "Perceiver", "name": None, "paper": rows[1].columns}
    json.dumps(tables)


def test_markdown():
    rows = [paper_row("x", "2.0", "0.9"), paper_row(None, "–", "43.9", "Perceiver")]
    counted = cost(1_000_000, 2_000_000_000, positions=100_000)
    lines = benchmark.to_markdown(benchmark.summarize({9: ("A title", rows)}, lambda _: counted))
    lines = lines.splitlines()
    assert lines[0] == "## Table 9: A title"
    assert lines[2].startswith(
        "| model | built as | GMACs | the paper's | parameters, M | the pap"
    )
    assert lines[4] == "| a model | `x` | 2.0 | 2.0 | **1.0** (1) | 0.9 | 70.0 |"
    assert lines[5] == "| Perceiver | – | – | – | – | 43.9 | 70.0 |"
    assert lines[7].startswith("1. the paper leaves out position embeddings")


@pytest.mark.parametrize("name", ["deit_tiny", "crossvit_tiny", "crossvit_9_dagger"])
def test_rows_of_built_models_stand_in_the_page(name):
    """What the command counts is what `docs/tables.md` says, in every table that has the model."""
    tables = {
        number: (title, [row for row in rows if row.name == name])
        for number, (title, rows) in TABLES.items()
        if any(row.name == name for row in rows)
    }
    page = TABLES_PAGE.read_text(encoding="utf-8")
    summary = benchmark.summarize(tables)
    exact = next(row for row in ROWS if row[0] == name)
    for table in summary:
        (row,) = table["rows"]
        assert (row["parameters"], row["macs"]) == (int(exact[1]), int(exact[2]))
    for line in benchmark.to_markdown(summary).splitlines():
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
    """Two lists of the paper's figures, typed apart: here and in tests/paper/test_tables.py."""
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
    assert set(kc.presets()) - presets == {
        "crossvit_small_no_class_token",
        "crossvit_18_t2t",
        "crossvit_digits",
    }


def test_macs_of_convolutions():
    """By hand: a strided, a grouped and a depthwise convolution, and a dense layer."""
    x = keras.Input((9, 9, 4))
    y = keras.layers.Conv2D(8, 3, strides=2)(x)  # 4 x 4 positions
    y = keras.layers.Conv2D(8, 1, groups=2)(y)
    y = keras.layers.DepthwiseConv2D(3, padding="same")(y)
    y = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(y))
    expected = 16 * (9 * 4 * 8) + 16 * (4 * 8) + 16 * (9 * 8) + 8 * 5
    assert kc.count_macs(keras.Model(x, y)) == expected


def test_cost_of_counts_trainable_parameters_and_positions():
    model = base.small_model()
    counted = benchmark.cost_of(model)
    assert counted["parameters"] == model.count_params()
    # 5 x 5 and 2 x 2 patches, class token and its position, widths 16 and 24.
    assert counted["position_parameters"] == (26 + 1) * 16 + (5 + 1) * 24
    x = keras.Input((4,))
    normed = keras.Model(x, keras.layers.BatchNormalization()(x))
    assert normed.count_params() == 16
    assert benchmark.cost_of(normed)["parameters"] == 8


def test_models_by_name():
    model = benchmark.make_model("deit_tiny@64")
    assert (model.name, model.input_shape) == ("deit_tiny", (None, 64, 64, 3))
    assert benchmark.make_model("MobileNetV3Small").output_shape == (None, 1000)
    frugal = benchmark.make_model("deit_tiny@64", gradient_checkpointing=True)
    assert frugal.get_layer("large_block_0").gradient_checkpointing


@pytest.mark.parametrize("name", ["crossvit_16", "resnet", "imagenet_utils", "deit_tiny@big"])
def test_unknown_models(name):
    with pytest.raises(ValueError, match=r"`name` must .* Received: name="):
        benchmark.make_model(name)


def test_accuracies_of_the_paper():
    assert benchmark.paper_top1("crossvit_15_dagger@408") == 83.5
    assert benchmark.paper_top1("EfficientNetB7") == 84.3
    assert benchmark.paper_top1("crossvit_digits") is None


class Clock:
    """A clock that models move when they predict."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def model(self, name, seconds):
        clock = self

        class Model:
            input_shape = (None, 8, 8, 3)

            def predict_on_batch(self, images):
                assert images.shape == (4, 8, 8, 3)
                clock.now += seconds[sum(entry == name for entry in clock.log)]
                clock.log.append(name)

        return Model()


def test_inference_of_several_models_takes_turns(monkeypatch):
    """Medians and spreads of known times; the first batch of each does not count."""
    clock = Clock()
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock.now)
    models = {
        "a": clock.model("a", [100, 1, 2, 4]),
        "b": clock.model("b", [100, 8, 8, 8]),
    }
    rates = benchmark.measure_inference(models, batch_size=4, repeats=3)
    assert clock.log == ["a", "b"] * 4
    assert rates == {
        "a": {"images_per_second": 2.0, "spread": (1.0, 4.0), "batch_size": 4},
        "b": {"images_per_second": 0.5, "spread": (0.5, 0.5), "batch_size": 4},
    }


def figure_row(model, top1, rate):
    return {
        "model": model,
        "top1": top1,
        "macs": 2e9,
        "parameters": 25_000_000,
        "images_per_second": rate,
        "spread": (rate - 1, rate + 1),
    }


def test_figure_1(tmp_path):
    rows = [
        figure_row("crossvit_9", 73.9, 10.0),
        figure_row("ResNet101", 76.7, 5.0),
        figure_row("crossvit_digits", None, 90.0),
    ]
    figure = benchmark.plot_speed(rows, tmp_path / "speed.png")
    by_cost, by_speed = figure.axes
    assert [text.get_text() for text in by_speed.texts] == ["crossvit_9", "ResNet101"]
    circles = np.concatenate(
        [c.get_offsets() for c in by_speed.collections if len(c.get_offsets())]
    )
    np.testing.assert_allclose(circles, [[10, 73.9], [5, 76.7]])
    np.testing.assert_allclose(by_speed.lines[1].get_xdata(), [4, 6])
    assert {c.get_sizes()[0] for c in by_speed.collections} == {150.0}
    assert by_cost.collections[0].get_offsets()[0].tolist() == [2.0, 73.9]
    legend = [text.get_text() for text in by_cost.get_legend().get_texts()]
    assert legend == ["CrossViT", "ResNet"]
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="`rows` must hold a model whose accuracy"):
        benchmark.plot_speed(rows[2:], tmp_path / "none.png")
