"""A folder that says what model it holds."""

import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from huggingface_hub import RepoCard

import crossvit_command
import keras_crossvit as kc
from tests import base

LABELS = ("ant", "bee", "cat", "dog", "eel")


@pytest.fixture(scope="module")
def model():
    return base.small_model(labels=LABELS)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("pretrained") / "model"
    model.save_pretrained(path, crop_ratio=0.9, details={"data": "five animals", "top-1": "93 %"})
    return path


def test_it_comes_back_whole(model, folder):
    again = kc.from_pretrained(folder)
    assert again.labels == LABELS
    assert again.config == model.config
    images = base.pixels()
    np.testing.assert_array_equal(again.predict_on_batch(images), model.predict_on_batch(images))


def test_what_the_folder_says(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        *("README.md", "config.json", "labels.txt", "model.safetensors"),
    ]
    assert (folder / "labels.txt").read_text().split() == [*LABELS]
    card = (folder / "README.md").read_text()
    assert "tags: [keras_crossvit, crossvit]\n" in card  # timm cannot build this architecture
    assert "| data | five animals |" in card
    assert "| top-1 | 93 % |" in card
    config = json.loads((folder / "config.json").read_text())
    assert config["num_classes"] == 5
    assert config["label_names"] == [*LABELS]
    assert config["pretrained_cfg"]["input_size"] == [3, 40, 40]
    assert config["pretrained_cfg"]["crop_pct"] == 0.9
    assert config["pretrained_cfg"]["mean"] == [0.485, 0.456, 0.406]


@keras.saving.register_keras_serializable("tests")
def quartered(logits):
    return logits / 4


def test_activations_of_ones_own(tmp_path):
    images = base.pixels()
    model = base.small_model(classifier_activation=quartered)
    model.save_pretrained(tmp_path / "registered")
    again = kc.from_pretrained(tmp_path / "registered")
    assert again.classifier_activation is quartered
    np.testing.assert_array_equal(again.predict_on_batch(images), model.predict_on_batch(images))

    def own(logits):
        return logits * 3

    base.small_model(classifier_activation=own).save_pretrained(tmp_path / "own")
    with pytest.raises(
        ValueError, match=r"`classifier_activation` must be given, .*function 'own'"
    ):
        kc.from_pretrained(tmp_path / "own")
    again = kc.from_pretrained(tmp_path / "own", classifier_activation=own)
    logits = kc.from_pretrained(tmp_path / "own", classifier_activation=None)
    np.testing.assert_allclose(again(images), 3 * logits(images), rtol=1e-6)


def test_headless_weights_start_a_classifier(tmp_path, caplog):
    features = base.small_model(include_top=False, pooling="avg")
    features.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"`reset_heads` must be True for weights without heads"):
        kc.from_pretrained(tmp_path, classes=3)
    made = kc.from_pretrained(tmp_path, classes=3, reset_heads=True)
    assert made.output_shape == (None, 3)
    assert "two heads of 3 classes are new and not trained" in caplog.text
    assert "(the file has no heads)" in caplog.text
    for name in ("small_norm", "stage_1", "large_position_embedding"):
        for ours, theirs in zip(
            made.get_layer(name).weights, features.get_layer(name).weights, strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
    named = kc.from_pretrained(tmp_path, labels=LABELS, reset_heads=True)
    assert (named.output_shape, named.labels) == ((None, 5), LABELS)
    caplog.clear()
    same = kc.from_pretrained(tmp_path, reset_heads=True)  # has no heads to reset
    assert caplog.text == ""
    images = base.pixels()
    np.testing.assert_array_equal(same.predict_on_batch(images), features.predict_on_batch(images))


def test_changes(model, folder):
    wide = kc.from_pretrained(folder, input_shape=(40, 64, 3))
    assert wide.input_shape == (None, 40, 64, 3)
    with pytest.raises(ValueError, match="`classes` must be 5, as in the weights"):
        kc.from_pretrained(folder, classes=3)
    new = kc.from_pretrained(folder, classes=3, reset_heads=True, classifier_activation=None)
    assert new.labels is None
    assert new.output_shape == (None, 3)
    np.testing.assert_array_equal(new.stages[0].weights[0], model.stages[0].weights[0])
    with pytest.raises(ValueError, match="`changes` must be arguments of CrossViT other than"):
        kc.from_pretrained(folder, weights=None)


@pytest.mark.parametrize(
    ("channels", "arguments", "mean"),
    [
        (5, {}, (0.485, 0.456, 0.406, 0.485, 0.456)),
        (1, {"include_preprocessing": False}, ((0.485 + 0.456 + 0.406) / 3,)),
        (1, {}, (0.485, 0.456, 0.406)),
    ],
)
def test_other_channels(channels, arguments, mean, folder):
    """The folder's mean and deviation are of three."""
    again = kc.from_pretrained(folder, input_shape=(40, 40, channels), **arguments)
    np.testing.assert_allclose(again.mean, mean)
    assert len(again.std) == len(mean)
    with pytest.raises(ValueError, match="`mean` must be None or 2 numbers"):
        kc.from_pretrained(folder, input_shape=(40, 40, 2), mean=(0.5,) * 3)


def test_a_folder_whose_weights_cannot_be_written_keeps_its_description(
    model, tmp_path, monkeypatch
):
    model.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(model, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keras_crossvit.models.pretrained.save_checkpoint", full)
    with pytest.raises(OSError, match="No space left"):
        base.small_model(classes=3).save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "arguments",
    [
        {"include_top": False, "pooling": "token"},
        {"input_shape": (40, 40, 1), "drop_rate": 0.2},
        {"input_shape": (40, 40, 5), "mean": (0.1,) * 5, "std": (0.2,) * 5},
        {"include_preprocessing": False, "classifier_activation": "sigmoid", "name": "mine"},
    ],
)
def test_other_models_come_back(arguments, tmp_path):
    model = base.small_model(**arguments)
    model.save_pretrained(tmp_path)
    images = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:]))
    again = kc.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again.predict_on_batch(images), model.predict_on_batch(images))
    assert {*model.get_config(), "reading"} == again.get_config().keys()
    assert (again.name, again.drop_rate) == (model.name, model.drop_rate)


def test_a_repository_of_the_hub(model, folder, monkeypatch):
    asked = []

    def fetch(repository, name):
        asked.append((repository, name))
        return str(folder / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    again = kc.from_pretrained("hf://me/animals")
    np.testing.assert_array_equal(again.weights[0], model.weights[0])
    assert asked == [("me/animals", "config.json"), ("me/animals", "model.safetensors")]


def test_push_to_hub(model, monkeypatch):
    calls = []

    class Api:
        def create_repo(self, name, private, exist_ok, repo_type, space_sdk):
            calls.append((name, private, exist_ok, repo_type, space_sdk))

        def upload_folder(self, repo_id, folder_path, repo_type):
            np.testing.assert_array_equal(
                kc.from_pretrained(folder_path).weights[0], model.weights[0]
            )
            calls.append((repo_id, repo_type, (Path(folder_path) / "app.py").is_file()))
            return "https://hub/commit"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert model.push_to_hub("me/animals", private=True) == "https://hub/commit"
    assert calls == [("me/animals", True, True, "model", None), ("me/animals", "model", False)]
    calls.clear()
    model.push_to_hub("me/page", space=True)
    assert calls == [("me/page", False, True, "space", "gradio"), ("me/page", "space", True)]
    with pytest.raises(ValueError, match='`name` must have the form "owner/name"'):
        model.push_to_hub("animals")


def test_a_space(model, tmp_path, monkeypatch):
    """The hub reads the card; `app.py` runs the command on the folder that it is in."""
    folder = tmp_path / "a space"
    model.save_pretrained(folder, space=True, details={"data": "five animals"})
    card = RepoCard.load(folder / "README.md")
    data = card.data.to_dict()
    assert (data["title"], data["sdk"], data["app_file"]) == (model.name, "gradio", "app.py")
    assert data["python_version"] == "3.11"
    assert "| data | five animals |" in card.text
    (requirement,) = (folder / "requirements.txt").read_text().splitlines()
    assert requirement in (f"keras-crossvit[{extra}]" for extra in setup_extras())
    started = []
    monkeypatch.setattr(crossvit_command, "run", lambda name: started.append((name, sys.argv[1:])))
    monkeypatch.setattr(sys, "argv", ["app.py"])
    runpy.run_path(str(folder / "app.py"), run_name="__main__")
    assert started == [("demo", [str(folder.resolve()), "--host", "0.0.0.0"])]
    again = kc.from_pretrained(folder)
    np.testing.assert_array_equal(again.weights[0], model.weights[0])


def setup_extras():
    return re.findall(r'^        "([\w-]+)": ', (base.ROOT / "setup.py").read_text(), re.MULTILINE)


def test_a_space_needs_a_classifier(tmp_path):
    backbone = base.small_model(include_top=False, pooling="token")
    with pytest.raises(ValueError, match="`space` must be False for a model without a top"):
        backbone.save_pretrained(tmp_path / "x", space=True)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "`source` must be a folder with config.json and model.safetensors"),
        ("{", "`source` must hold a whole config.json"),
        ("{}", "without an architecture"),
        ("3", "without an architecture"),
        ('{"output_dir": "runs/x"}', "`source` must hold a model, as .* run does.* holds none"),
        ('{"architecture": "resnet50"}', "Received: .* of 'resnet50'"),
        ('{"architecture": "crossvit_9_240"}', "`source` must .* its images, input_size"),
        ('{"keras_crossvit": {"version": 2}}', "`source` must be of version 1; .* of version 2"),
        (
            '{"keras_crossvit": {"version": 1, "config": {}, "colour": 1}}',
            "no fields in config.json that this version does not know.* with colour",
        ),
        ('{"keras_crossvit": {"version": 1, "config": {}}}', "must describe a CrossViTConfig"),
    ],
)
def test_a_folder_that_does_not_say(content, message, tmp_path):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        kc.from_pretrained(tmp_path)


def test_nothing_is_written_for_a_model_without_names_in_timm(tmp_path):
    inputs = keras.Input((40, 40, 3))
    built_on = base.small_model(input_tensor=keras.layers.Rescaling(2.0)(inputs))
    with pytest.raises(ValueError, match="`model` must not be built on an `input_tensor`"):
        built_on.save_pretrained(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_other_files_and_keys_of_a_configuration_stay(model, tmp_path):
    (tmp_path / "config.json").write_text('{"epochs": 3}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"timm's, of another model")
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["epochs"] == 3
    again = kc.from_pretrained(tmp_path)
    assert again.labels == LABELS
    np.testing.assert_array_equal(again.weights[0], model.weights[0])


def test_a_runs_folder_keeps_its_model(model, tmp_path):
    (tmp_path / "model.keras").write_bytes(b"of a run")
    with pytest.raises(ValueError, match="`folder` must not be a run's"):
        model.save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]


def test_a_model_without_labels_leaves_none_of_another(model, tmp_path):
    model.save_pretrained(tmp_path)
    base.small_model(classes=3).save_pretrained(tmp_path)
    assert "label_names" not in json.loads((tmp_path / "config.json").read_text())
    assert not (tmp_path / "labels.txt").exists()


def test_a_config_json_that_is_no_object(model, tmp_path):
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"`folder` must have an object in its config\.json"):
        model.save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("labels", [("a",), "abcde", ("a", "b", "c", "d", ""), (1, 2, 3, 4, 5)])
def test_labels_that_do_not_fit(labels):
    with pytest.raises(ValueError, match="`labels` must be"):
        base.small_model(labels=labels)


def test_labels_are_saved_with_the_model(model, tmp_path):
    model.save(tmp_path / "x.keras")
    assert keras.saving.load_model(tmp_path / "x.keras").labels == LABELS


def test_labels_that_are_set_later(tmp_path):
    """A file with others than the classes could not be loaded."""
    model = base.small_model(classes=3)
    model.labels = ["a", "b"]
    for save in (
        lambda: model.save_pretrained(tmp_path),
        lambda: model.save(tmp_path / "x.keras"),
    ):
        with pytest.raises(ValueError, match="`labels` must be a list of 3 names"):
            save()
    assert not (tmp_path / "model.safetensors").exists()
    model.labels = ["a", "b", "c"]
    model.save(tmp_path / "x.keras")
    assert keras.saving.load_model(tmp_path / "x.keras").labels == ("a", "b", "c")


def test_a_folder_onto_a_tensor(model, folder):
    """The shape is that of the tensor; for other channels the folder has no mean."""
    tensor = keras.Input((64, 64, 3))
    assert kc.from_pretrained(folder, input_tensor=tensor).grids["large"] == (4, 4)
    four = kc.from_pretrained(folder, input_tensor=keras.Input((40, 40, 4)))
    assert len(four.mean) == 4


def test_the_card_says_which_pixels(tmp_path):
    base.small_model(include_preprocessing=False).save_pretrained(tmp_path)
    assert (
        "3 channels, pixels normalised beforehand, centre" in (tmp_path / "README.md").read_text()
    )


def test_a_config_json_of_values_of_other_kinds(model, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "edited")
    path = tmp_path / "edited" / "config.json"
    found = json.loads(path.read_text())
    for own in ({**found["keras_crossvit"], "input_shape": None}, None):
        path.write_text(json.dumps({**found, "keras_crossvit": own}))
        with pytest.raises(
            ValueError, match=r"^`source` must have a config.json as this package or timm"
        ):
            kc.from_pretrained(tmp_path / "edited")
    path.write_text('{"a":')
    with pytest.raises(ValueError, match=r"`folder` must have an object .*edited.config\.json$"):
        model.save_pretrained(tmp_path / "edited")
    with pytest.raises(ValueError, match='`source` must have the form "hf://owner/name"'):
        kc.from_pretrained("hf://animals")


def test_labels_of_the_model_that_was_there_leave_with_it(model, tmp_path):
    stale = {"label_names": ["x"], "label_descriptions": {"x": "an x"}, "mine": 1}
    (tmp_path / "config.json").write_text(json.dumps(stale))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["label_names"], config["mine"]) == ([*LABELS], 1)
    assert "label_descriptions" not in config


def test_a_readme_that_is_no_model_card_stays(tmp_path, caplog):
    (tmp_path / "README.md").write_text("# My project\n")
    base.small_model().save_pretrained(tmp_path, details={"a|b": "c|d\ne"})
    assert (tmp_path / "README.md").read_text() == "# My project\n"
    assert f"{tmp_path / 'README.md'} is no model card of this package" in caplog.text
    with pytest.raises(ValueError, match=r"^`folder` must have no README\.md other than a model"):
        base.small_model().save_pretrained(tmp_path, space=True)
    assert not (tmp_path / "app.py").exists()
    (tmp_path / "README.md").unlink()
    for name in ("first", "second"):
        base.small_model(name=name).save_pretrained(tmp_path, details={"a|b": "c|d\ne"})
        card = (tmp_path / "README.md").read_text()
        assert f"\n# {name}\n" in card
        assert "\n| a\\|b | c\\|d e |\n" in card


def test_a_folder_that_lost_its_weights(folder, tmp_path):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(ValueError, match=r"^`source` must .* model\.safetensors .* has none$"):
        kc.from_pretrained(tmp_path)


@pytest.mark.parametrize("folder", ["", None, 3])
def test_a_path_that_was_forgotten_is_not_the_current_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = base.small_model()
    with pytest.raises(ValueError, match=rf"^`folder` must be a path\. .*folder={folder!r}$"):
        model.save_pretrained(folder)
    with pytest.raises(ValueError, match=rf"^`source` must be a path\. .*source={folder!r}$"):
        kc.from_pretrained(folder)
    with pytest.raises(ValueError, match=r"^`details` must be a dictionary or None\. .*=\['a'\]$"):
        model.save_pretrained("folder", details=["a"])
    assert not list(tmp_path.iterdir())
