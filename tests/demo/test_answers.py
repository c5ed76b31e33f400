"""What the page shows, without the page: the same answers as `crossvit predict`, and sentences."""

import os

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from keras_crossvit.demo.answers import MAX_FILE_MIB, Answer, Answerer, to_show
from keras_crossvit.prediction import classify_files
from tests import base
from tests.paper.test_models import deit_config

pytestmark = pytest.mark.slow

LABELS = ("ant", "bee", "cat", "dog", "eel")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three images, the second of which is to be turned upright, and a file that is not one."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{name}.jpg" for name in "abc"]
    turned = Image.Exif()
    turned[0x0112] = 6
    for seed, path in enumerate(paths):
        pixels = base.pixels(1, 50, 70, seed=seed)[0].astype("uint8")
        Image.fromarray(pixels).save(path, exif=turned if seed == 1 else b"")
    (folder / "none.jpg").write_text("no picture")
    return [*paths, folder / "none.jpg"]


@pytest.fixture(scope="module")
def answerer():
    return Answerer(base.small_model(labels=LABELS), top_k=3, crop_ratio=0.8)


def test_answers_are_those_of_predict(answerer, files):
    rows = classify_files(answerer.model, files[:3], top_k=3, branches=True, crop_ratio=0.8)
    for file, row in zip(files, rows, strict=False):
        answer = answerer.answer(file)
        assert list(answer.scores["model"]) == row["classes"]
        np.testing.assert_allclose([*answer.scores["model"].values()], row["scores"], atol=1e-6)
        assert [LABELS[index] for index in answer.classes] == row["classes"]
        for branch in ("small", "large"):
            (name, score), *others = answer.scores[branch].items()
            assert name == row[f"{branch}_class"]
            assert score == pytest.approx(row[f"{branch}_score"], abs=1e-6)
            assert len(others) == 2
            assert score >= max(other for _, other in others)


def test_orientation_is_as_it_is_asked_for(answerer, files):
    as_stored = Answerer(answerer.model, crop_ratio=0.8, exif_orientation=False)
    for name, file in zip("ab", files, strict=False):
        same = np.array_equal(as_stored.answer(file).pixels[0], answerer.answer(file).pixels[0])
        assert same == (name == "a")


@pytest.mark.parametrize(
    "changes",
    [
        {"classifier_activation": None, "input_shape": (40, 40, 1)},
        {"classes": 1, "include_preprocessing": False},
    ],
)
def test_other_classifiers(changes, files):
    """Logits, grey, one class, normalised images."""
    model = base.small_model(base.small_config(num_stages=1), **changes)
    answerer = Answerer(model)
    answer = answerer.answer(files[0])
    (expected,) = np.asarray(model.predict_on_batch(answer.images[0]))
    if model.classes > 1:
        expected = np.exp(expected) / np.exp(expected).sum()
    scores = {str(index): score for index, score in enumerate(expected.tolist())}
    assert answer.scores["model"] == pytest.approx(scores, abs=1e-6)
    shown = answerer.attention_picture(answer, 0), answerer.evidence_picture(answer, 0)
    assert all(np.ptp(np.asarray(picture)[..., :3]) == 255 for picture in shown)


def test_pictures_are_of_the_stage_the_branch_and_the_class(answerer, files):
    answer = answerer.answer(files[0])
    both, first, small, large = (
        np.asarray(answerer.attention_picture(answer, *which))
        for which in ((1,), (0,), (1, ["small"]), (1, ["large"]))
    )
    assert not np.array_equal(both, first)
    assert small.shape == large.shape
    assert small.shape[1] < both.shape[1]
    assert not np.array_equal(small, large)
    evidence = [np.asarray(answerer.evidence_picture(answer, index)) for index in (0, 1)]
    assert not np.array_equal(*evidence)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (base.small_config(fusion="pairwise", num_stages=1), "The model's fusion is 'pairwise'"),
        (deit_config(), "The model has one branch"),
    ],
)
def test_models_without_cross_attention_show_the_rest(config, sentence, files):
    model = base.small_model(config)
    answerer = Answerer(model)
    assert answerer.why_no_attention.startswith(sentence)
    answer = answerer.answer(files[0])
    (expected,) = model.predict_on_batch(answer.images[0])
    assert list(answer.scores["model"].values()) == pytest.approx(sorted(expected)[::-1], abs=1e-6)
    assert answer.attention is None
    heads = {"small", "large"} if len(model.branches) == 2 else set()
    assert set(answer.scores) == {"model"} | heads
    assert np.ptp(np.asarray(answerer.evidence_picture(answer, 0))[..., :3]) == 255


def test_a_model_that_takes_pairs(files):
    config = base.small_config(num_stages=1)
    model = base.small_model(config, inputs="separate", labels=LABELS)
    answerer = Answerer(model)
    assert "an image for each branch" in answerer.why_no_attention
    answer = answerer.answer(*files[:2])
    images = [x[np.newaxis] for x in answer.pixels]
    (scores,) = model.predict_on_batch(images)
    assert answer.scores["model"] == pytest.approx(
        dict(zip(LABELS, scores.tolist(), strict=True)), abs=1e-6
    )
    (swapped,) = model.predict_on_batch(images[::-1])
    assert np.abs(swapped - scores).max() > 1e-3


def test_a_file_that_cannot_be_read_is_named_in_a_sentence(answerer, files, tmp_path):
    large = tmp_path / "large.jpg"
    with large.open("wb") as file:
        file.truncate(MAX_FILE_MIB * 2**20 + 1)
    cases = [
        (files[3], r"^none\.jpg cannot be read: .* JPEG, PNG, GIF, BMP or WebP file"),
        (large, r"^large\.jpg is larger than 32 MiB, the most that the page takes\.$"),
        (tmp_path / "gone.jpg", r"^gone\.jpg cannot be read: No such file or directory$"),
    ]
    for path, sentence in cases:
        with pytest.raises(ValueError, match=sentence):
            answerer.answer(path)
    ((shown, problems),) = answerer.gallery([large, files[0], files[3]])
    assert len(shown) == 1
    assert [problem.split()[0] for problem in problems] == ["large.jpg", "none.jpg"]


def test_a_gallery_grows_batch_by_batch(answerer, files, monkeypatch):
    monkeypatch.setattr("keras_crossvit.demo.answers._BATCH_SIZE", 2)
    sizes = [(len(shown), len(problems)) for shown, problems in answerer.gallery(files)]
    assert sizes == [(2, 0), (3, 1)]
    *_, (shown, _) = answerer.gallery(files)
    for file, (_, caption) in zip(files, shown, strict=False):
        name, score = next(iter(answerer.answer(file).scores["model"].items()))
        assert caption == f"{name}, {score:.0%} ({file.name})"
    assert list(answerer.gallery([])) == []


def test_names_that_are_not_utf8_can_be_shown(answerer, files, tmp_path):
    """As JSON, which cannot hold them as they are."""
    image, text, large = (
        tmp_path / os.fsdecode(name) for name in (b"i\xe9.jpg", b"t\xe9.jpg", b"l\xe9.jpg")
    )
    image.write_bytes(files[0].read_bytes())
    text.write_text("no picture")
    with large.open("wb") as file:
        file.truncate(MAX_FILE_MIB * 2**20 + 1)
    ((shown, problems),) = answerer.gallery([image, text, large])
    assert [caption.split(" (")[1] for _, caption in shown] == [r"i\udce9.jpg)"]
    assert [problem.split()[0] for problem in problems] == [r"l\udce9.jpg", r"t\udce9.jpg"]
    assert "".join([shown[0][1], *problems]).isascii()


def test_a_model_with_an_input_of_any_size(files):
    """Its files are read at the size of its branches, and so its answers are those of a copy."""
    image = keras.Input((None, None, 3))
    open_sided = base.small_model(input_tensor=keras.layers.Resizing(40, 40)(image))
    fixed = base.small_model()
    fixed.set_weights(open_sided.get_weights())
    found, wanted = (Answerer(model).answer(files[0]) for model in (open_sided, fixed))
    assert found.scores["model"] == pytest.approx(wanted.scores["model"], abs=1e-6)
    np.testing.assert_array_equal(found.pixels[0], wanted.pixels[0])


def test_classes_of_one_name_are_told_apart(monkeypatch):
    names = ("ant", "crane", "cat", "crane", "eel")
    answerer = Answerer(base.small_model(labels=names))
    assert answerer.names == ("ant", "crane (1)", "cat", "crane (3)", "eel")
    titles = []

    def plot_gradcam(image, maps, scores):
        titles.extend(scores)
        return Figure()

    monkeypatch.setattr("keras_crossvit.visualize.plot_gradcam", plot_gradcam)
    images = base.pixels(1)
    answerer.evidence_picture(Answer((images[0],), (images,), {}, (), None), 3)
    assert [name for name, _ in titles] == ["crane (3)"]


def test_small_and_grey_pictures_are_shown_large_and_in_colours():
    pixels = np.arange(12, dtype="float32").reshape(3, 4, 1)
    shown = to_show(pixels)
    assert shown.shape == (240, 320, 3)
    assert shown.dtype == "uint8"
    np.testing.assert_array_equal(shown[::80, ::80, 2], pixels[..., 0])
    assert to_show(np.zeros((240, 300, 3))).shape == (240, 300, 3)
    assert to_show(np.zeros((239, 300, 3))).shape == (478, 600, 3)


def test_what_is_no_classifier_is_refused():
    for model in (base.small_model(include_top=False), base.small_model(input_shape=(40, 40, 5))):
        with pytest.raises(ValueError, match="`model` must"):
            Answerer(model)
    with pytest.raises(ValueError, match="`top_k` must be a positive integer"):
        Answerer(base.small_model(), top_k=0)
    with pytest.raises(ValueError, match=r"number in \(0, 1\]\. Received: crop_ratio=2\.0"):
        Answerer(base.small_model(), crop_ratio=2.0)
