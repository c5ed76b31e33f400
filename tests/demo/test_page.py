"""The page in a browser: a model that learned two photographs, the command, and what it shows."""

import json
import re
import shutil
import socket
import struct
import sys
import zlib

import keras
import numpy as np
import pytest
from PIL import Image

import crossvit_command
from keras_crossvit.prediction import classify_files
from tests import base

pytestmark = pytest.mark.main_job

PATIENCE = 30_000  # the longest wait for something to appear, in milliseconds
NAMES = ("flower", "temple")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Files of the two photographs, and two that are not images."""
    from sklearn.datasets import load_sample_image

    folder = tmp_path_factory.mktemp("photographs")
    for name, source in zip(NAMES, ("flower", "china"), strict=True):
        Image.fromarray(load_sample_image(f"{source}.jpg")).save(folder / f"{name}.jpg")
    (folder / "text.png").write_text("no picture")
    (folder / "cut.jpg").write_bytes((folder / "temple.jpg").read_bytes()[:5000])
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """The folder of a model whose heads learned, by least squares, to tell the two apart."""
    model = base.small_model(classes=2, labels=NAMES)
    crops, classes, draw = [], [], np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        photo = Image.open(photos / f"{name}.jpg").reduce(4)
        for _ in range(32):
            left, top = draw.integers(0, [photo.width - 80, photo.height - 80])
            crops.append(photo.crop((left, top, left + 80, top + 80)).resize((40, 40)))
            classes.append(number)
    heads = {branch: layers.head for branch, layers in model.branches.items()}
    body = keras.Model(model.input, {branch: head.input for branch, head in heads.items()})
    features = body.predict_on_batch(np.stack([np.asarray(crop, "float32") for crop in crops]))
    logits = 6 * np.eye(2)[classes] - 3
    for branch, head in heads.items():
        x = np.pad(features[branch].astype("float64"), [(0, 0), (0, 1)], constant_values=1)
        solution = np.linalg.solve(x.T @ x + 0.1 * np.eye(x.shape[1]), x.T @ logits)
        head.kernel.assign(solution[:-1])
        head.bias.assign(solution[-1])
    folder = tmp_path_factory.mktemp("run")
    model.save(folder / "model.keras")
    (folder / "config.json").write_text(json.dumps({"crop_ratio": 1.0}))
    return folder


@pytest.fixture(scope="module")
def address(run, photos):
    """The page of `crossvit demo`, in this process."""
    base.skip_without("gradio")
    import gradio

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pages = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradio.Blocks, "block_thread", lambda page: pages.append(page))
        arguments = [str(run), "--folder", str(photos), "--port", str(port)]
        patch.setattr(sys, "argv", ["crossvit", "demo", *arguments])
        crossvit_command.main()
    yield f"http://127.0.0.1:{port}"
    pages[0].close()


@pytest.fixture(scope="module")
def browser():
    base.skip_without("playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("the browser chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser, address):
    """The page, which must request nothing from elsewhere."""
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    page.set_default_timeout(PATIENCE)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.get_by_role("tab", name="Photograph").wait_for()
    yield page
    page.close()
    here = (f"{address}/", "data:", f"blob:{address}/")
    assert asked
    assert [url for url in asked if not url.startswith(here)] == []


def drop(page, *files, number=0):
    """Puts files into one of the page's file inputs."""
    page.locator("input[type=file]").nth(number).set_input_files([str(file) for file in files])


def label(page, name):
    """What a component with bars says, `[(class, percent), ...]`, once it says something."""
    box = page.locator(".block", has=page.get_by_text(name, exact=True)).last
    box.get_by_text("%").first.wait_for()
    return re.findall(r"^([^\n]+)\n+(\d+)%$", box.inner_text(), re.MULTILINE)


def picture(page, name, other_than=None):
    """The address of a drawn image, once there is one, and one other than before."""
    image = page.locator(f"#{name} img")
    image.wait_for()
    if other_than:
        page.wait_for_function(
            "([name, old]) => document.querySelector(`#${name} img`).src != old",
            arg=[name, other_than],
        )
    return image.get_attribute("src")


def test_a_photograph_is_answered_as_by_predict(page, run, photos):
    model = keras.saving.load_model(run / "model.keras")
    files = [photos / f"{name}.jpg" for name in NAMES]
    rows = classify_files(model, files, branches=True, crop_ratio=1.0)
    for name, file, row in zip(NAMES, files, rows, strict=True):
        drop(page, file)
        page.get_by_role("heading", name=name).first.wait_for()
        shown = label(page, "Model")
        assert [entry for entry, _ in shown] == row["classes"]
        assert row["classes"][0] == name
        assert [int(x) for _, x in shown] == pytest.approx(100 * np.array(row["scores"]), abs=0.51)
        for branch in ("small", "large"):
            entry, percent = label(page, f"Head of the {branch} branch")[0]
            assert entry == row[f"{branch}_class"]
            assert int(percent) == pytest.approx(100 * row[f"{branch}_score"], abs=0.51)
        page.get_by_label("Clear").first.click()
        page.get_by_role("heading", name=name).first.wait_for(state="detached")


def test_pictures_follow_the_slider_and_the_choices(page, photos):
    page.get_by_role("heading", name="Evidence for a class").wait_for()
    drop(page, photos / "temple.jpg")
    last, evidence = picture(page, "cross-attention"), picture(page, "grad-cam")
    slider = page.get_by_role("slider")
    assert slider.input_value() == "1"
    slider.press("ArrowLeft")
    first = picture(page, "cross-attention", other_than=last)
    page.get_by_label("small reads large").check()
    picture(page, "cross-attention", other_than=first)
    page.get_by_label("Class", exact=True).click()
    page.get_by_role("option", name="flower").click()
    picture(page, "grad-cam", other_than=evidence)


def test_bad_files_get_a_sentence_and_the_page_stays_up(page, photos, tmp_path):
    header = struct.pack(">4sIIBBBBB", b"IHDR", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(100 * 2**20)
    drop(page, tmp_path / "large.jpg")
    page.get_by_text(re.compile(r"exceed the maximum allowed size of 32.*large\.jpg")).wait_for()
    files = [photos / "text.png", photos / "cut.jpg", tmp_path / "bomb.png"]
    sentence = page.get_by_label("Not classified")
    for file in files:
        drop(page, file)
        page.wait_for_function(
            "name => document.querySelector('#problem textarea')?.value.startsWith(name)",
            arg=f"{file.name} cannot be read: ",
        )
        assert "\n" not in sentence.input_value()
        page.get_by_label("Clear").first.click()
        sentence.wait_for(state="detached")
    drop(page, photos / "temple.jpg")
    page.get_by_role("heading", name="temple").first.wait_for()


def test_a_folder_becomes_a_gallery(page, photos):
    page.get_by_role("tab", name="Folder").click()
    page.get_by_role("button", name="Classify the folder's 4 files").click()
    for name in NAMES:
        page.get_by_text(re.compile(rf"^{name}, \d+% \({name}\.jpg\)$")).wait_for()
    notes = page.get_by_label("Notes").input_value().splitlines()
    assert [note.split()[0] for note in notes] == ["cut.jpg", "text.png"]
    drop(page, photos / "temple.jpg", photos / "text.png", number=1)
    page.get_by_text(re.compile(r"^flower, ")).wait_for(state="detached")
    page.get_by_text(re.compile(r"^temple, \d+% \(temple\.jpg\)$")).wait_for()
    assert page.get_by_label("Notes").input_value().startswith("text.png cannot be read")
