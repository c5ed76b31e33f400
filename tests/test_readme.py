"""Every command in the README and every snippet in it and in the documentation runs."""

import dataclasses
import pathlib
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit.data.config import AUGMENTATIONS
from keras_crossvit.data.sources import SOURCES, open_source
from keras_crossvit.layers.fusions.base import FUSIONS
from keras_crossvit.models.config import PRESETS
from tests import base

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    "README.md",
    "docs/fine-tune.md",
    "docs/heads-and-inputs.md",
    "docs/checkpoints.md",
    "docs/features.md",
    "docs/visualize.md",
    "docs/extend.md",
    "docs/training.md",
]


def blocks(language, page="README.md"):
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


SNIPPETS = [
    pytest.param(page, snippet, id=f"{page}: {snippet.splitlines()[-1][:40]}")
    for page in PAGES
    for snippet in blocks("python", page)
]


def shallow():
    """The presets, those of more than three encoders a stage with one: the others cost time."""
    found = {**PRESETS}
    for name, preset in PRESETS.items():
        config = preset.config
        if config.large.depth > 3:
            large = dataclasses.replace(config.large, depth=1)
            config = dataclasses.replace(config, large=large)
            found[name] = dataclasses.replace(preset, config=config)
    return found


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    """A folder with what the snippets mention: a photograph, pictures, an archive, weights."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    folder = tmp_path_factory.mktemp("readme")
    for name, pixels in zip(("temple", "flower"), load_sample_images().images, strict=True):
        picture = Image.fromarray(pixels)
        picture.save(folder / "photo.jpg")
        (folder / "pictures" / name).mkdir(parents=True)
        for index in range(5):
            crop = picture.crop((40 * index, 20 * index, 40 * index + 300, 20 * index + 300))
            crop.save(folder / "pictures" / name / f"{index}.jpg")
    shutil.make_archive(folder / "pictures", "zip", folder / "pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PRESETS, "_entries", shallow())
        kc.save_checkpoint(kc.CrossViT15Dagger(weights=None), folder / "published.safetensors")
    fusion = next(x for x in blocks("python", "docs/extend.md") if "register_fusion" in x)
    (folder / "swap_means.py").write_text(fusion, encoding="utf-8")
    return folder


@pytest.mark.main_job
@pytest.mark.parametrize(("page", "snippet"), SNIPPETS)
def test_snippet(page, snippet, surroundings, monkeypatch, caplog):
    asked = []

    def download(repository, filename):
        asked.append((repository, filename))
        return str(surroundings / "published.safetensors")

    # The hub and the list of ImageNet's classes are out of a test's reach.
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    index = {str(i): [f"n{i:08d}", f"class_{i}"] for i in range(1000)}
    monkeypatch.setattr("keras.src.applications.imagenet_utils.CLASS_INDEX", index)
    # What a snippet registers is not there for other tests.
    for registry in (AUGMENTATIONS, FUSIONS, SOURCES):
        monkeypatch.setattr(registry, "_entries", {**registry._entries})
    monkeypatch.setattr(PRESETS, "_entries", shallow())
    monkeypatch.chdir(surroundings)
    monkeypatch.syspath_prepend(surroundings)  # as for a script in that folder
    names = {}
    exec(compile(snippet, page, "exec"), names)

    if "decode_predictions" in snippet:
        assert asked == [("timm/crossvit_15_dagger_240.in1k", "model.safetensors")]
        assert names["scores"].shape == (1, 1000)
        assert names["scores"].sum() == pytest.approx(1, abs=1e-4)
    if "image_dataset_from_directory" in snippet:
        assert names["model"].output_shape == (None, 2)
        assert "two heads of 2 classes are new" in caplog.text
        assert len(names["model"].history.history["val_acc"]) == 5
    if "export_saved_model" in snippet:
        assert (surroundings / "export" / "1" / "saved_model.pb").is_file()
    if "all but the heads;" in snippet:
        paths = [variable.path for variable in names["model"].trainable_variables]
        assert paths == [f"{x}_head/{y}" for x in ("small", "large") for y in ("kernel", "bias")]
    if "pair" in names:
        assert names["pair"].input_shape == [(None, 240, 240, 3)] * 2
        assert names["heads"].output_shape == (None, 7)
    if "two photographs" in snippet:
        assert names["model"].labels == ("flower", "temple")
    if "feature_names" in snippet:
        assert names["tokens"].output["small/norm"].shape == (None, 401, 128)
        assert names["maps"].output["stage_2/large"].shape == (None, 14, 14, 256)
    if "rollout" in snippet:
        trained, model = names["trained"], names["model"]
        assert trained.output["rollout"].shape == (None, 14 * 14)
        image = base.pixels(1, 240, 240)
        np.testing.assert_allclose(trained(image)["classes"], model(image), atol=1e-6)
        # The stages are computed once, not twice.
        assert kc.count_macs(trained) < 1.3 * kc.count_macs(model)
    if "feature_pyramid" in snippet:
        assert names["pyramid"].output["p2"].shape == (None, 64, 80, 128)
    if "register_fusion" in snippet:
        train_and_reload(names["model"])
        mixed = kc.CrossViT(names["config"], weights=None, classes=10, dtype="mixed_bfloat16")
        assert mixed.predict_on_batch(np.zeros((1, 48, 48, 3), "float32")).shape == (1, 10)
    if "training_batches" in snippet and "model" in names:
        assert len(names["model"].history.history["val_accuracy"]) == 2
    if "RECIPE = " in snippet:
        config = kc.CrossViTConfig.preset(names["RECIPE"].model)
        assert (config.fusion, config.large.embed_dim) == ("swap_means", 384)
    if "SOURCES" in snippet:
        source = open_source("zip:pictures.zip", validation_split=0.2)
        assert source.class_names == ("flower", "temple")
        assert (source.train.size, source.validation.size) == (8, 2)
        assert [source.validation.load(row)[1] for row in range(2)] == [0, 1]
        jpeg, _ = source.train.load(0)
        assert jpeg == pathlib.Path("pictures", source.train.name(0)).read_bytes()
    if "register_augmentation" in snippet:
        # The digits are bright on black: a negative is brighter than half.
        negatives = np.mean(names["images"], axis=(1, 2, 3)) > 127
        assert 8 < negatives.sum() < 24


def train_and_reload(model):
    """The fusion from outside the package learns, and comes back from a file."""
    side = model.input_shape[1]
    images = np.random.default_rng(0).uniform(0, 255, (4, side, side, 3)).astype("float32")
    fuse = model.get_layer("stage_0").fuse
    assert type(fuse).__name__ == "SwapMeans"
    before = np.array(fuse.to_small.kernel)
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    losses = model.fit(images, np.arange(4), epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert np.abs(np.array(fuse.to_small.kernel) - before).max() > 0
    model.save("swap_means.keras")
    loaded = keras.saving.load_model("swap_means.keras")
    np.testing.assert_allclose(loaded(images), model(images), atol=1e-6)


def test_commands_are_the_known_ones():
    """Each command of the README is run here or by the test that is named."""
    assert [block.strip() for block in blocks("bash")] == [
        'pip install ".[tensorflow]"',  # test_install
        "python recipes/train.py --recipe imagenet --model crossvit_15_dagger --data-dir DATA \\\n"
        "    --precision mixed_bfloat16 --output-dir runs/imagenet "
        "--set accumulation_steps=16",  # training/test_recipes.py
        "crossvit evaluate runs/mine\n"
        "crossvit predict runs/mine pictures --output table.csv\n"
        "crossvit export runs/mine --output-dir export\n"  # tests/commands/
        "crossvit demo runs/mine",  # tests/demo/test_page.py
        "python recipes/export.py --model crossvit_15_dagger --weights imagenet "
        "--output-dir export",  # export/test_runtimes.py
        "make train",  # tests/test_main_job.py
        "make test",  # what runs this
    ]


def test_install():
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", ".[tensorflow]"]
    done = subprocess.run(pip, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"Would install keras-crossvit-{kc.__version__}" in done.stdout


@pytest.mark.parametrize("target", ["train", "test"])
def test_make_knows_the_targets(target):
    make = [shutil.which("make"), "--dry-run", target]
    done = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = {"train": "recipes/train.py --recipe digits", "test": "-m pytest"}
    assert wanted[target] in done.stdout


def test_table_of_models():
    """Parameters, multiply-accumulates and names in the table are those of the models."""
    rows = re.findall(r"\| `(\w+)(\(.*?\))?` \| ([\d.]+) \| ([\d.]+) \| [\d.]+ \|", README)
    assert len(rows) == 11
    for name, arguments, parameters, gmacs in rows:
        shape = (408, 408, 3) if "408" in arguments else None
        with base.without_values():
            model = getattr(kc, name)(weights=None, input_shape=shape)
        assert f"{model.count_params() / 1e6:.1f}" == parameters, name
        assert f"{kc.count_macs(model) / 1e9:.1f}" == gmacs, name


def test_folders_exist():
    for name in re.findall(r"^\| `([\w.]+/[\w/.]*)` \|", README, flags=re.MULTILINE):
        assert (ROOT / name).exists(), name
