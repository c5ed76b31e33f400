"""Every notebook runs from top to bottom, and prints what it is committed with."""

import json
import pathlib

import pytest

NOTEBOOKS = sorted((pathlib.Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, capsys):
    names = {}
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    for cell in code:
        exec(compile("".join(cell["source"]), path.name, "exec"), names)
        committed = "".join(text for output in cell["outputs"] for text in output["text"])
        assert capsys.readouterr().out == committed
