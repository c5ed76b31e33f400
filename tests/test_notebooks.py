"""Every notebook runs from top to bottom, and prints and draws what it is committed with."""

import ast
import io
import json
import logging
import re
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from tests import base

NOTEBOOKS = sorted((base.ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 400_000  # bytes of a notebook, with its pictures

# Trained results differ a little on another processor: a number with a percent sign may differ
# by this many points. All other text is the same on all machines.
POINTS = 15
_PERCENT = re.compile(r"\b(\d+)%")


def assert_same_text(printed, committed):
    assert _PERCENT.sub("%", printed) == _PERCENT.sub("%", committed)
    for ours, theirs in zip(_PERCENT.findall(printed), _PERCENT.findall(committed), strict=True):
        assert abs(int(ours) - int(theirs)) <= POINTS, (printed, committed)


def run_cell(source, name, names):
    """Runs a cell; the value of its last line, if that is an expression, as Jupyter shows it."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), names)
    return eval(compile(ast.Expression(last.value), name, "eval"), names) if last else None


def assert_same_pictures(value, outputs):
    """A figure where a figure is committed, and one that can be drawn."""
    committed = [output for output in outputs if "image/png" in output.get("data", {})]
    assert isinstance(value, Figure) == bool(committed)
    if committed:
        file = io.BytesIO()
        value.savefig(file, format="png")
        assert file.getvalue().startswith(b"\x89PNG")
        axes = re.search(r"with (\d+) Axes", "".join(committed[0]["data"]["text/plain"]))
        assert len(value.axes) == int(axes.group(1))


def assert_own_problem(names):
    """What the text of notebook 06 says about its figures holds here too."""
    shares, probes = names["shares"], names["probes"]
    assert shares["the file"] > shares["nothing"] + 0.05 > 0.4
    assert min(probes["neighbours"], probes["linear probe"]) > probes["neighbour, pixels"]
    assert probes["neighbours"] > shares["the file"]
    model, patches = names["model"], names["model"].branches["small"].patch_embed
    assert not patches.trainable
    start = names["before"].branches["small"].patch_embed
    for ours, theirs in zip(patches.get_weights(), start.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert 0.8 < names["judged"]["mean_average_precision"] < 1
    for figures in names["judged"]["per_class"].values():
        assert 0.7 < figures["f1 at the chosen threshold"] <= figures["f1"] + 1e-9
    assert names["kept"].labels == model.labels == tuple(names["names"])
    np.testing.assert_allclose(names["three"], names["one"], atol=1e-4)
    read = names["inside"]["stage_0/large/cross_attention"].numpy()
    assert read.min() >= 0
    assert 0 < read.sum(axis=(1, 2)).min() <= read.sum(axis=(1, 2)).max() < 1  # itself is left out


def assert_fine_tuning_pays(names):
    """Notebook 02: the same few images take a trained model further than a new one."""
    last = {name: history["val_accuracy"][-1] for name, history in names["histories"].items()}
    assert last["fine-tuned"] > last["from nothing"] + 0.05


CLAIMS = {"02_finetune": assert_fine_tuning_pays, "06_your_own_problem": assert_own_problem}


@pytest.fixture
def _quiet(monkeypatch, tmp_path):
    """Files go to the test's own folder; what a notebook sets up is undone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    levels = {name: logging.getLogger(name).level for name in ("tensorflow", "keras_crossvit")}
    with plt.rc_context():
        yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.main_job
@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, capsys):
    names = {}
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    capsys.readouterr()
    for cell in code:
        value = run_cell("".join(cell["source"]), path.name, names)
        committed = "".join(text for out in cell["outputs"] for text in out.get("text", []))
        assert_same_text(capsys.readouterr().out, committed)
        assert_same_pictures(value, cell["outputs"])
    if path.stem in CLAIMS:
        CLAIMS[path.stem](names)


def test_all_six_are_there():
    assert [path.stem for path in NOTEBOOKS] == [
        "01_quickstart",
        "02_finetune",
        "03_what_it_sees",
        "04_fusions",
        "05_serving",
        "06_your_own_problem",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_small_and_of_a_whole_run(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < LARGEST
    assert "/tmp/" not in text
    cells = json.loads(text)["cells"]
    runs = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
    assert runs == list(range(1, len(runs) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell.get("outputs", [])}
    assert kinds <= {"stream", "execute_result"}


def test_text_is_compared_with_a_tolerance_only_for_percentages():
    assert_same_text("top-1 80%, 59,028 parameters", "top-1 85%, 59,028 parameters")
    for other in ("top-1 64%, 59,028 parameters", "top-1 80%, 59,027 parameters"):
        with pytest.raises(AssertionError):
            assert_same_text("top-1 80%, 59,028 parameters", other)
