"""`crossvit predict`: its table, and the files and names in it."""

import csv
import json
import os
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_crossvit as kc
from keras_crossvit import prediction
from keras_crossvit.commands import shared
from keras_crossvit.prediction import write_table
from tests.commands.helpers import LABELS, answers, refusal

pytestmark = pytest.mark.slow


def test_predict_writes_a_row_for_each_file(run, command, tmp_path):
    files, _, scores = answers(run)
    table = tmp_path / "table.csv"
    arguments = ("--output", table, "--top-k", 2, "--batch-size", 5, "--branches")
    said = command("predict", run / "run", run / "pictures" / "validation", *arguments)
    assert said.strip() == f"{table}: 13 files, 1 unreadable"
    reader = csv.DictReader(table.open())
    rows = {row["file"]: row for row in reader}
    assert reader.fieldnames == [
        *("file", "class_1", "score_1", "class_2", "score_2"),
        *("small_class", "small_score", "large_class", "large_score", "error"),
    ]
    heads = kc.branch_logits(keras.saving.load_model(run / "run" / "model.keras"))
    for file, row_scores in zip(files, scores, strict=True):
        row = rows[str(file)]
        best = np.argsort(-row_scores)
        assert (row["class_1"], row["class_2"]) == (LABELS[best[0]], LABELS[best[1]])
        assert float(row["score_1"]) == pytest.approx(row_scores[best[0]], rel=1e-4)
        image = tf.io.decode_png(file.read_bytes())[tf.newaxis]
        logits = heads.predict_on_batch(np.asarray(image, "float32"))["small"][0]
        assert row["small_class"] == LABELS[logits.argmax()]
        score = np.exp(logits.max()) / np.exp(logits).sum()
        assert float(row["small_score"]) == pytest.approx(score, rel=1e-4)
        assert row["large_score"] == f"{float(row['large_score']):.6g}"
        assert row["error"] == ""
    (broken,) = (row for name, row in rows.items() if name.endswith("broken.jpg"))
    assert broken["class_1"] == ""
    assert broken["error"]


def test_paths_may_follow_an_option(run, command, tmp_path):
    table = tmp_path / "table.csv"
    said = command("predict", run / "run", "--output", table, run / "pictures" / "validation")
    assert said.strip() == f"{table}: 13 files, 1 unreadable"


def test_predict_hands_on_what_it_is_given(command, tmp_path, monkeypatch):
    """Before what the run says; and all paths, though the first stands where MODEL does."""
    calls = []

    def classify_files(model, files, **given):
        calls.append(([file.name for file in files], given))
        return [{"file": "x"}]

    values = {"crop_ratio": 0.8, "exif_orientation": True}
    model = types.SimpleNamespace(reading={"crop_ratio": 0.7})  # the run's config.json comes first
    for name, function in (
        ("find_model", lambda arguments: shared.FoundModel(model, values)),
        ("classify_files", classify_files),
    ):
        monkeypatch.setattr(f"keras_crossvit.commands.predict.{name}", function)
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(b"x")
    paths = "--model", "crossvit_9", tmp_path / "b.png", tmp_path / "a.png"
    command("predict", *paths, "--output", tmp_path / "t.csv", "--no-exif-orientation")
    files, given = calls.pop()
    assert files == ["b.png", "a.png"]
    assert given == {
        **{"top_k": 5, "batch_size": 32, "branches": False},
        **{"crop_ratio": 0.8, "exif_orientation": False},
    }


def test_predict_as_json(run, command, tmp_path):
    file = run / "pictures" / "validation" / "eel" / "0.png"
    command("predict", run / "run" / "model.keras", file, "--output", tmp_path / "t.json")
    (row,) = json.loads((tmp_path / "t.json").read_text())
    assert row["file"] == str(file)
    assert sorted(row["classes"]) == [*LABELS]
    assert sum(row["scores"]) == pytest.approx(1, abs=1e-5)


def test_a_name_that_is_not_utf_8_has_its_row(tmp_path):
    rows = [{"file": os.fsdecode(b"bad\xff.jpg"), "classes": ["bee"], "scores": [0.5]}]
    write_table(rows, tmp_path / "t.csv")
    table = (tmp_path / "t.csv").read_text(encoding="utf-8")
    assert table == "file,class_1,score_1,error\nbad\\udcff.jpg,bee,0.5,\n"


def test_a_name_with_a_carriage_return_stays_in_its_row(tmp_path):
    rows = [
        {"file": "odd\r.jpg", "classes": ["bee"], "scores": [0.5]},
        {"file": "none.jpg", "error": "the file is empty"},
    ]
    write_table(rows, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first == {"file": "odd\r.jpg", "class_1": "bee", "score_1": "0.5", "error": ""}
    assert second == {"file": "none.jpg", "class_1": "", "score_1": "", "error": rows[1]["error"]}


def test_what_is_printed_stays_in_its_line(command, tmp_path):
    message = refusal(command, "predict", "x", "gone\r\x1b.jpg", "--output", tmp_path / "t.csv")
    assert message.endswith(r"Received: gone\r\x1b.jpg")


def test_predict_makes_the_folder_of_its_table(run, command, tmp_path):
    pictures, table = tmp_path / "pictures", tmp_path / "new" / "deep" / "t.json"
    pictures.mkdir()
    (pictures / "empty.png").write_bytes(b"")
    (pictures / "gone.png").symlink_to("nowhere.png")
    said = command("predict", run / "run", pictures, "--output", table)
    assert said.strip() == f"{table}: 2 files, 2 unreadable"
    empty, gone = json.loads(table.read_text())
    assert empty == {"file": str(pictures / "empty.png"), "error": "the file is empty"}
    assert gone["file"] == str(pictures / "gone.png")
    assert "No such file" in gone["error"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("x.txt", "`--output` must end in .csv or .json. Received: {0}/x.txt"),
        ("taken.csv", "`--output` must be a file. Received: {0}/taken.csv, which is a folder"),
        ("file/x.csv", "that can be made and written. Received: {0}/file/x.csv, in {0}/file"),
        ("gone/x.csv", "that can be made and written. Received: {0}/gone/x.csv, in {0}/gone"),
    ],
)
def test_predict_refuses_a_table_before_it_classifies(
    run, command, tmp_path, monkeypatch, table, message
):
    monkeypatch.setattr(prediction.FileClassifier, "__init__", None)  # none may be made
    (tmp_path / "taken.csv").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "gone").symlink_to("nowhere")
    pictures = run / "pictures"
    said = refusal(command, "predict", run / "run", pictures, "--output", tmp_path / table)
    assert said.endswith(message.format(tmp_path))
