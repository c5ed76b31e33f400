"""The wheel and the source distribution: what is in them, and that the wheel works alone."""

import json
import os
import pathlib
import subprocess
import sys
import tarfile
import zipfile

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from tests import base

PREDICT = """
import json, sys
import keras, keras_crossvit as kc

config = kc.CrossViTConfig.preset("crossvit_digits")
model = kc.CrossViT(config, weights=sys.argv[1], classes=10)
photo = keras.utils.load_img(sys.argv[2], target_size=(48, 48), keep_aspect_ratio=True)
scores = model.predict(keras.utils.img_to_array(photo)[None], verbose=0)
print(json.dumps({"scores": scores.tolist(), "file": kc.__file__, "version": kc.__version__}))
"""


def run(*command, **options):
    """What a command printed; the test fails with its errors if it fails."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The paths of the wheel and of the source distribution, built from this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ".", cwd=base.ROOT)
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, source


@pytest.mark.main_job
def test_twine_accepts_both(distributions):
    printed = run(sys.executable, "-m", "twine", "check", "--strict", *distributions)
    assert printed.count("PASSED") == 2


@pytest.mark.main_job
def test_wheel_holds_the_package_and_nothing_else(distributions):
    wheel, _ = distributions
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        about = archive.read(metadata).decode()
        (license_file,) = (name for name in names if name.endswith("/licenses/LICENSE"))
        assert archive.read(license_file) == (base.ROOT / "LICENSE").read_bytes()
    info = f"keras_crossvit-{kc.__version__}.dist-info"
    top = {"keras_crossvit", "crossvit_command.py", info}
    assert {name.split("/")[0] for name in names} == top
    package = {str(path.relative_to(base.ROOT)) for path in modules()}
    assert {name for name in names if name.startswith("keras_crossvit/")} == package
    assert "\nLicense-Expression: Apache-2.0\n" in about
    assert "\nClassifier: Typing :: Typed\n" in about
    assert (base.ROOT / "README.md").read_text(encoding="utf-8") in about


@pytest.mark.main_job
def test_source_distribution_holds_what_the_tests_need(distributions):
    _, source = distributions
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md"} <= names
    assert {"setup.py", "pyproject.toml", "Makefile", ".pre-commit-config.yaml"} <= names
    for folder in ("docs", "notebooks", "recipes", "tests", "tools"):
        files = [path for path in (base.ROOT / folder).rglob("*") if path.is_file()]
        wanted = {str(path.relative_to(base.ROOT)) for path in files if path.suffix != ".pyc"}
        assert wanted <= names
    assert not [name for name in names if "__pycache__" in name]


def modules():
    """The files that a wheel has to hold: the modules, ImageNet's names, the typing marker."""
    package = base.ROOT / "keras_crossvit"
    others = package / "py.typed", package / "models" / "imagenet_labels.txt"
    return [*package.rglob("*.py"), *others]


@pytest.fixture(scope="module")
def installed(distributions, tmp_path_factory):
    """The Python of an environment with the wheel, and what the README says to install with it.

    uv stands in for pip, and for nothing else: the environment is empty and everything
    comes from the registry. It links files from its cache where pip copies 2 GB.
    """
    wheel, _ = distributions
    extra = "tensorflow"
    readme = (base.ROOT / "README.md").read_text(encoding="utf-8")
    assert f'pip install ".[{extra}]"' in readme
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "uv", "pip", "install", "--python", python, f"{wheel}[{extra}]")
    return python


@pytest.mark.main_job
def test_wheel_predicts_in_an_empty_environment(installed, tmp_path):
    """The scores of an image file are those of the same weights here."""
    config = kc.CrossViTConfig.preset("crossvit_digits")
    model = kc.CrossViT(config, weights=None, classes=10)
    weights, photo = tmp_path / "tiny.safetensors", tmp_path / "photo.png"
    kc.save_checkpoint(model, weights)
    keras.utils.save_img(photo, base.pixels(1, 60, 80)[0], scale=False)
    image = keras.utils.load_img(photo, target_size=(48, 48), keep_aspect_ratio=True)
    expected = model.predict(keras.utils.img_to_array(image)[None], verbose=0)

    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    command = (installed, "-c", PREDICT, weights, photo)
    answer = json.loads(run(*command, cwd=tmp_path, env=environment).splitlines()[-1])
    assert pathlib.Path(answer["file"]).is_relative_to(installed.parents[1])
    assert answer["version"] == kc.__version__
    np.testing.assert_allclose(answer["scores"], expected, atol=1e-6)
    assert np.ptp(expected) > 1e-3  # not the same score for every class

    table = tmp_path / "table.json"  # by the console script, from a folder that describes itself
    labels = [f"digit {number}" for number in range(10)]
    named = kc.CrossViT(config, weights=weights, classes=10, labels=labels)
    named.save_pretrained(tmp_path / "model", crop_ratio=1.0)
    predict = installed.with_name("crossvit"), "predict", tmp_path / "model", photo
    said = run(*predict, "--output", table, cwd=tmp_path, env=environment)
    assert said.splitlines() == [f"{table}: 1 file"]
    (row,) = json.loads(table.read_text())
    scores = dict(zip(row["classes"], row["scores"], strict=True))
    assert len(scores) == 5
    assert scores.keys() < set(labels)
