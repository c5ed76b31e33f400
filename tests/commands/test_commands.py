"""The commands, in this process, on a run's folder that a test made."""

import json
import socket
import sys
import textwrap
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import crossvit_command
import keras_crossvit as kc
from keras_crossvit import probes
from keras_crossvit.commands import shared
from keras_crossvit.commands.evaluate import _report
from keras_crossvit.commands.export import parse_export
from keras_crossvit.data.sources import SOURCES
from keras_crossvit.layers.fusions import FUSIONS
from keras_crossvit.models import pretrained
from keras_crossvit.models.presets import PRESETS
from keras_crossvit.weights import sources as weight_sources
from tests import base
from tests.commands.helpers import LABELS, answers, refusal

pytestmark = pytest.mark.slow


def test_evaluate_needs_only_the_folder_of_a_run(run, command, monkeypatch):
    """The classes are matched by name, though the data lack one."""
    _, labels, scores = answers(run)
    found = json.loads(command("evaluate", run / "run"))
    assert (found["pictures"], found["unreadable"]) == (12, 1)
    assert found["top1"] == pytest.approx((scores.argmax(1) == labels).mean())
    monkeypatch.setenv("HOME", str(run))
    monkeypatch.setenv("USERPROFILE", str(run))  # on Windows, whose shells leave ~ to the command
    assert json.loads(command("evaluate", "~/run")) == found
    assert refusal(command, "evaluate", "").endswith("must be a path. Received: MODEL=''")


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("evaluate", "as many as the data have"),
        ("export", "as many as --labels has, or 1000"),
        ("predict", "1000"),
    ],
)
def test_help_says_what_is_taken_by_default(name, classes, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["crossvit", name, "--help"])
    with pytest.raises(SystemExit):
        crossvit_command.main()
    said = " ".join(capsys.readouterr().out.split())
    assert f"number of classes in --weights; by default {classes} --" in said
    assert "imagenet, imagenet-408, a file or hf://OWNER/NAME" in said
    assert name == "export" or "--batch-size BATCH_SIZE images at a time" in said


def test_evaluate_needs_no_training_split(run, command, tmp_path):
    (tmp_path / "validation").symlink_to(run / "pictures" / "validation")
    data = f"folder:{tmp_path}"
    whole = json.loads(command("evaluate", run / "run"))
    found = json.loads(command("evaluate", run / "run" / "model.keras", "--dataset", data))
    assert found["pictures"] == whole["pictures"]


def test_evaluation_says_which_values_it_used(run, command, tmp_path, monkeypatch):
    """The run's, or the defaults, where arguments are left out."""
    monkeypatch.setattr("keras_crossvit.commands.evaluate._measure", lambda *given: {"top1": 0.5})
    (tmp_path / "model.keras").symlink_to(run / "run" / "model.keras")
    values = {"dataset": f"folder:{run / 'pictures'}", "validation_split": "train"}
    (tmp_path / "config.json").write_text(json.dumps({**values, "exif_orientation": False}))
    command("evaluate", tmp_path, "--output-dir", tmp_path)
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert (written["dataset"], written["split"]) == tuple(values.values())
    assert (written["crop_ratio"], written["exif_orientation"]) == (0.875, False)
    assert written["top1"] == 0.5


def test_a_result_is_json_and_written_though_nobody_reads_it(tmp_path, capsys, monkeypatch):
    """Also without any class that some images have and others lack, as in few images."""
    _report({"pictures": 3, "auc": float("nan")}, None, {}, ())
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["auc"] is None

    def closed(text):
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", closed)
    with pytest.raises(BrokenPipeError):
        _report({"pictures": 3, "auc": 0.5}, tmp_path, {}, ())
    assert json.loads((tmp_path / "evaluation.json").read_text()) == {"pictures": 3, "auc": 0.5}


def test_the_best_epoch_is_evaluated_as_the_run(run, command):
    """With the data and the crop of the run whose folder it is in."""
    (run / "run" / "best.keras").write_bytes((run / "run" / "model.keras").read_bytes())
    assert command("evaluate", run / "run" / "best.keras") == command("evaluate", run / "run")


def test_a_model_of_the_hub_is_read_as_its_folder(run, command, tmp_path, monkeypatch):
    """With the crop that its config.json names, for timm or, before that, as a run's."""
    model = keras.saving.load_model(run / "run" / "model.keras")
    (tmp_path / "config.json").write_text('{"crop_ratio": null}')
    model.save_pretrained(tmp_path, crop_ratio=0.5)
    for module in (pretrained, weight_sources):
        monkeypatch.setattr(module, "download", lambda repository, name, *said: tmp_path / name)
    data = "--dataset", f"folder:{run / 'pictures'}"
    found = command("evaluate", "hf://owner/name", *data)
    assert found == command("evaluate", tmp_path, *data)
    assert found == command("evaluate", run / "run" / "model.keras", "--crop-ratio", 0.5)
    assert found != command("evaluate", run / "run")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "crop_ratio": 1.0}))
    assert command("evaluate", tmp_path, *data) == command("evaluate", run / "run")


def test_probes(run, command, monkeypatch):
    """Of twelve training features and the held-out ones, made once; neighbours by hand."""
    model = keras.saving.load_model(run / "run" / "model.keras")
    heads = [layers.head.input for layers in model.branches.values()]
    body = keras.Model(model.input, heads)
    found = {}
    for split in ("train", "validation"):
        files, labels, _ = answers(run, split)
        images = np.stack([tf.io.decode_png(file.read_bytes()) for file in files])
        features = np.concatenate(body.predict_on_batch(images.astype("float32")), axis=1)
        found[split] = features / np.linalg.norm(features, axis=1, keepdims=True), labels
    (known, classes), (asked, truth) = found["train"], found["validation"]
    votes = np.exp(asked @ known.T / 0.07) @ np.eye(5)[classes]  # 12 are fewer than 20 neighbours
    made = []
    features_of = probes.features_of
    monkeypatch.setattr(
        probes, "features_of", lambda *given, **rest: made.append(1) or features_of(*given, **rest)
    )
    written = json.loads(command("evaluate", run / "run", "--knn", "--linear-probe"))
    assert len(made) == 2
    assert written["knn"]["top1"] == pytest.approx((votes.argmax(1) == truth).mean())
    assert written["knn"]["neighbours"] == 12
    assert 0 <= written["linear_probe"]["top1"] <= 1


def test_evaluate_hands_on_what_it_is_given(command, monkeypatch):
    calls = []
    source = types.SimpleNamespace(name="x", class_names=("ant",), validation="held out")
    source.with_classes = lambda labels: source
    image = types.SimpleNamespace(shape=(None, 40, 40, 3))
    model = types.SimpleNamespace(
        labels=("ant",), inputs=[image], images={"large": image}, reading={}
    )
    values = {"crop_ratio": 0.8, "exif_orientation": True}
    for name, function in (
        ("find_model", lambda arguments: shared.FoundModel(model, values)),
        ("find_data", lambda *arguments: source),
        ("evaluate", lambda model, split, names, **given: calls.append(given) or {}),
    ):
        monkeypatch.setattr(f"keras_crossvit.commands.evaluate.{name}", function)
    command("evaluate", "run", "--no-exif-orientation", "--batch-size", 7, "--branches")
    reading = {"batch_size": 7, "crop_ratio": 0.8, "exif_orientation": False}
    assert calls == [{"branches": True, **reading}]


@pytest.fixture
def own_design(tmp_path):
    """A run's model with a fusion that only a recipe file registers, and that file."""
    code = """
        import keras_crossvit as kc

        @kc.layers.register_fusion("tests_halves")
        class TestsHalves(kc.layers.Fusion):
            def call(self, tokens, training=False):
                return [tokens[0] / 2, tokens[1] / 2]
    """
    recipe = tmp_path / "own.py"
    recipe.write_text(textwrap.dedent(code))
    exec(compile(recipe.read_text(), recipe, "exec"), {"__name__": "elsewhere"})
    model = base.small_model(base.small_config(fusion="tests_halves"), labels=LABELS)
    model.save(tmp_path / "own.keras")
    forget_own_design()
    yield tmp_path / "own.keras", recipe, model
    forget_own_design()


def forget_own_design():
    """As in a new process, in which no file was run."""
    FUSIONS._entries.pop("tests_halves", None)
    keras.saving.get_custom_objects().pop("keras_crossvit>TestsHalves", None)


def test_a_design_of_ones_own_is_registered_by_recipe(run, command, own_design, tmp_path):
    path, recipe, model = own_design
    picture = run / "pictures" / "validation" / "eel" / "0.png"
    table = tmp_path / "t.json"
    arguments = ("predict", path, picture, "--crop-ratio", 1, "--output", table)
    message = refusal(command, *arguments)
    assert "must be registered first: --recipe FILE.py. Received: " in message
    assert f"{path}, where `fusion` must be one of" in message
    command(*arguments, "--recipe", recipe)
    image = tf.io.decode_png(picture.read_bytes())[tf.newaxis]
    scores = model.predict_on_batch(np.asarray(image, "float32"))[0]
    (row,) = json.loads(table.read_text())
    assert row["classes"][0] == LABELS[scores.argmax()]
    assert row["scores"][0] == pytest.approx(scores.max(), rel=1e-4)


@pytest.mark.parametrize("name", ["evaluate", "predict", "export", "demo"])
def test_which_file_recipe_must_be(name, run, command):
    if name == "demo":
        base.skip_without("gradio")
    needed = {"predict": [run / "pictures", "--output", "x.csv"], "export": ["--output-dir", "x"]}
    message = refusal(command, name, run / "run", *needed.get(name, []), "--recipe", "digits")
    assert "`--recipe` must name an existing file that ends in .py" in message
    assert "Received: --recipe digits" in message


def test_a_folder_without_a_model(command, tmp_path):
    """Such as the checkpoints of a run, or a run that has not ended."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "step-0000000001.safetensors").write_bytes(b"")
    message = refusal(command, "export", tmp_path, "--output-dir", tmp_path / "export")
    assert "`MODEL` must be a folder that holds a model: model.keras" in message
    assert message.endswith(f"Received: {tmp_path}, which holds none")
    (tmp_path / "model.safetensors").write_bytes(b"")
    message = refusal(command, "export", tmp_path, "--output-dir", tmp_path / "export")
    assert "`MODEL` must hold a config.json of this package or of timm" in message


def test_export_calls_the_classes_as_the_model_does(run, command, tmp_path):
    said = command("export", run / "run", "--output-dir", tmp_path)
    assert said.strip() == f"saved_model: {tmp_path / '1'}"
    labels = (tmp_path / "1" / "assets" / "labels.txt").read_text().split()
    assert labels == [*LABELS]


def test_convert(run, command, tmp_path):
    said = command("convert", run / "run" / "model.keras", tmp_path / "x.safetensors")
    assert "parameters" in said
    assert (tmp_path / "x.safetensors").is_file()


def test_a_source_of_ones_own_is_registered_by_recipe(run, command, tmp_path, monkeypatch):
    for registry in (PRESETS, SOURCES):
        monkeypatch.setattr(registry, "_entries", {**registry._entries})
    recipe = tmp_path / "own_source.py"
    recipe.write_text(
        "from keras_crossvit.data import open_source\n"
        "from keras_crossvit.data.sources.base import SOURCES\n"
        "import keras_crossvit as kc\nfrom tests.base import small_config\n"
        "kc.register_preset('tests_of_a_source')(small_config())\n"
        "SOURCES.register('tests_own')(lambda asked: open_source(f'folder:{asked.location}'))\n"
    )
    weights = tmp_path / "x.safetensors"
    kc.save_checkpoint(base.small_model(classes=4), weights)
    options = ("--dataset", f"tests_own:{run / 'pictures'}", "--recipe", recipe)
    model = ("--model", "tests_of_a_source", "--weights", weights)
    found = json.loads(command("evaluate", *model, *options, "--crop-ratio", 1))
    assert (found["pictures"], found["unreadable"]) == (12, 1)


def test_heads_that_the_weights_lack_are_not_asked(monkeypatch, tmp_path):
    model = types.SimpleNamespace(heads_left_out=True, classes=4)
    monkeypatch.setattr(shared, "CrossViT", lambda config, **values: model)
    given = ["--model", "crossvit_9", "--weights", "imagenet", "--classes", "4"]
    arguments = shared.parser_of(None, "evaluate").parse_args(given)
    with pytest.raises(ValueError, match=r"`--classes` must be 1000, .* imagenet for 4 classes$"):
        shared.find_model(arguments)
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\n")
    options = ["--labels", str(tmp_path / "labels.txt"), "--output-dir", "x"]
    of_labels = parse_export([*given[:4], *options])
    with pytest.raises(ValueError, match=r"`--labels` must have 1000 lines, .* for 4 labels$"):
        shared.find_model(of_labels)
    arguments.knn = True  # which asks the features alone
    assert shared.find_model(arguments).model is model


def test_convert_knows_the_presets_of_a_recipe(command, tmp_path):
    model = base.small_model(base.small_config(num_stages=3, fusion="none"))
    weights, made = tmp_path / "x.safetensors", tmp_path / "x.keras"
    kc.save_checkpoint(model, weights)
    message = refusal(command, "convert", weights, made)
    assert "`source` must hold the weights of one of the presets" in message
    recipe = tmp_path / "own.py"
    recipe.write_text(
        "import keras_crossvit as kc\nfrom tests.base import small_config\n"
        "kc.register_preset('tests_converted')(small_config(num_stages=3, fusion='none'))\n"
    )
    said = command("convert", weights, made, "--recipe", recipe)
    assert said.startswith(f"{made}: tests_converted, ")
    again = keras.saving.load_model(made)
    images = base.pixels()
    np.testing.assert_array_equal(again.predict_on_batch(images), model.predict_on_batch(images))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate"], "`MODEL` must be a run's folder, a .keras file or hf://OWNER/NAME, or"),
        (["evaluate", "nowhere"], "`MODEL` must be an existing folder or file"),
        (["evaluate", "crossvit_9"], "Did you mean --model crossvit_9?"),
        (["evaluate", "--model", "crossvit_9", "--dataset", "digits"], "`--weights` must be"),
        (
            ["evaluate", "runs/x", "--input-size", "96"],
            "`--input-size` must be given with --model",
        ),
        (["evaluate", "runs/x", "--classes", "7"], "`--classes` must be given with --model alone"),
        (
            [
                *("evaluate", "--model", "crossvit_9", "--weights", "imagenet"),
                *("--dataset", "digits", "--classes", "0"),
            ],
            "`classes` must be a positive integer. Received: classes=0",
        ),
        (["evaluate", "runs/x", "--output-dir", __file__], "`--output-dir` must be a folder"),
        (["evaluate", "nowhere", "--branches", "--linear-probe"], "--branches, --linear-probe"),
        (["predict", "nowhere", "nothing.jpg", "--output", "x.csv"], "`PATH` must be an existing"),
        (["convert", "nothing.pth", "x.safetensors"], "`source` must be an existing file"),
        (["train", "--recipe", "digits", "--dataset", "../data"], "folder:../data"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, message, command):
    assert message in refusal(command, *arguments)


def test_a_missing_package_is_told_its_extra(run, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    message = refusal(command, "evaluate", run / "run", "--dataset", "cifar10")
    assert message.startswith("ModuleNotFoundError")
    assert 'pip install "keras-crossvit[train]"' in message


def test_demo_without_gradio(run, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    message = refusal(command, "demo", run / "run")
    assert message.endswith('the page needs gradio: pip install "keras-crossvit[demo]"')


def test_demo_hands_on_what_it_is_given(command, monkeypatch):
    base.skip_without("gradio")
    calls = []
    page = types.SimpleNamespace(block_thread=lambda: None)
    model = types.SimpleNamespace(name="mine", reading={})
    values = {"crop_ratio": 0.8, "exif_orientation": True}
    for name, function in (
        ("commands.demo.find_model", lambda arguments: shared.FoundModel(model, values)),
        ("demo.answers.Answerer", lambda model, **given: calls.append(given)),
        ("demo.page.make_page", lambda answerer, files: page),
        ("demo.page.start", lambda page, host, port: f"http://{host}:{port}"),
    ):
        monkeypatch.setattr(f"keras_crossvit.{name}", function)
    said = command("demo", "run", "--no-exif-orientation", "--top-k", 2, "--port", 8000)
    assert said == "mine: http://127.0.0.1:8000\n"
    assert calls == [{"top_k": 2, "crop_ratio": 0.8, "exif_orientation": False}]


def test_demo_says_in_one_line_what_is_wrong(run, command, tmp_path):
    base.skip_without("gradio")
    (tmp_path / "x.keras").write_text("no model")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        cases = [
            (["nowhere"], "`MODEL` must be an existing folder or file"),
            ([tmp_path / "x.keras"], "`MODEL` must be a complete .keras file. Received: "),
            ([run / "run", "--folder", tmp_path], "`PATH` must hold files that end in .jpg"),
            ([run / "run", "--top-k", 0], "`top_k` must be a positive integer"),
            (
                [run / "run", "--port", port],
                f"must be a free address of this machine. Received: host='127.0.0.1', port={port}",
            ),
            ([run / "run", "--port", 80_000], "`port` must be a number in [1, 65535]"),
        ]
        for arguments, message in cases:
            assert message in refusal(command, "demo", *arguments)


def test_a_run_that_does_not_say_what_it_is(command, tmp_path):
    (tmp_path / "config.json").write_text("{")
    message = refusal(command, "evaluate", tmp_path)
    assert "`MODEL` must be a folder with a whole config.json" in message
    for name, value, allowed in (
        ("crop_ratio", "abc", "a number"),
        ("exif_orientation", 1, "true or false"),
        ("dataset", ["digits"], "a string"),
        ("pretrained_cfg", "abc", "an object"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({name: value}))
        message = refusal(command, "evaluate", tmp_path)
        assert (
            f"`{name}` must be {allowed} or null in a config.json. Received: {tmp_path}" in message
        )
        assert message.endswith(f"config.json, with {name}={value!r}")
