"""`keras_crossvit.visualize` on any model and backend, without changing the model; its plots."""

import keras
import numpy as np
import pytest

from keras_crossvit import visualize
from keras_crossvit.common import pixels
from keras_crossvit.visualize.maps import resize_maps
from tests import base

pytestmark = pytest.mark.slow

WIDE = base.pixels(2, 40, 64)


@pytest.fixture(scope="module")
def wide():
    """A model for images of 40 x 64 pixels; tests must not change it."""
    return base.small_model(input_shape=(40, 64, 3))


def all_functions(model, images):
    return [
        visualize.cross_attention(model, images),
        visualize.attention_rollout(model, images),
        visualize.feature_maps(model, images),
        visualize.gradcam(model, images),
    ]


@pytest.mark.parametrize(("mode", "close"), [("int8", 0.1), ("float8", 0.3)])
def test_a_quantised_model_looks_where_the_model_did(mode, close):
    """All functions run, and Grad-CAM's maps change by the error of the numbers alone."""
    model = base.small_model(input_shape=(40, 64, 3))
    before = visualize.gradcam(model, WIDE, classes=2)["both"]
    model.quantize(mode)
    assert len(all_functions(model, WIDE)) == 4
    after = visualize.gradcam(model, WIDE, classes=2)["both"]
    assert 0 < np.abs(after - before).max() < close * before.max()


def test_nothing_changes_the_model():
    """Weights, what is trainable and the graph stay; training goes on."""
    model = base.small_model(drop_path_rate=0.1, drop_rate=0.1)
    model.get_layer("stage_0").trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    values, layers = base.values_of(model), [model, *model._flatten_layers()]
    answers = model.predict_on_batch(base.pixels())

    def state():
        nodes = [(len(x._inbound_nodes), len(x._outbound_nodes)) for x in layers]
        return nodes, [x.trainable for x in layers], len(model.variables), set(vars(model))

    before = state()
    all_functions(model, base.pixels())
    assert state() == before
    for old, new in zip(values, base.values_of(model), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(model.predict_on_batch(base.pixels()), answers)
    assert np.isfinite(model.train_on_batch(base.pixels(), np.arange(2)))


def test_loaded_models_work(tmp_path):
    model = base.small_model(classifier_activation=None)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    expected = keras.tree.flatten(all_functions(model, base.pixels()))
    found = keras.tree.flatten(all_functions(loaded, base.pixels()))
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = base.small_model()
    cross, own, features, cam = all_functions(model, base.pixels())
    for attention in (*cross[0].values(), *own.values()):
        assert attention.patches.dtype == "float32"
        total = attention.patches.sum(axis=(-2, -1)) + attention.itself
        np.testing.assert_allclose(total, 1, atol=0.02)
    assert features["large"].dtype == cam["both"].dtype == "float32"


def test_what_makes_no_sense_is_refused(wide):
    wrapped = keras.Sequential([keras.Input((40, 64, 3)), wide, keras.layers.Dense(2)])
    backbone = base.small_model(include_top=False)
    averages = base.small_model(base.small_config(class_token=False))
    pairs = base.small_model(inputs="separate")
    cases = [
        (visualize.attention_rollout, (wrapped, WIDE), "`model` must be a CrossViT of this pack"),
        (visualize.feature_maps, (None, WIDE), "`model` must .* Received: NoneType"),
        (visualize.feature_maps, (pairs, [WIDE, WIDE]), "one image for both .* inputs="),
        (visualize.attention_rollout, (averages, base.pixels()), "`model` must have class tokens"),
        (visualize.gradcam, (backbone, base.pixels()), "`model` must be a classifier"),
        (visualize.class_scores, (backbone, base.pixels()), "`model` must be a classifier"),
        (visualize.class_scores, (wide, WIDE, 5), "`classes` must be .* 0 to 4.* classes="),
        (visualize.gradcam, (wide, WIDE, 5), "`classes` must be .* 0 to 4.* classes="),
        (visualize.gradcam, (wide, WIDE, [1, 2, 3]), "each of the 2 images"),
        (visualize.gradcam, (wide, WIDE, 0.5), "`classes` must be integers"),
        (visualize.gradcam, (wide, WIDE, "bee"), "labels of the model .* Received: classes='bee'"),
        (visualize.gradcam, (wide, WIDE, "33"), r"Received: classes='33'\. Did you mean '3'\?"),
        (visualize.gradcam, (wide, WIDE, ["0", "1", "2"]), "each of the 2 images"),
        (visualize.gradcam, (wide, WIDE, b"bee"), "Received: classes=b'bee'"),
        (visualize.gradcam, (wide, WIDE, np.array([0, 1], object)), "`classes` must be integers"),
        (visualize.gradcam, (wide, WIDE[:0]), r"at least one\. Received: .* \(0, 40, 64, 3\)"),
        (visualize.gradcam, (wide, WIDE, 0, 2), "`stage` must be one of -2, -1, 0, 1"),
        (visualize.feature_maps, (wide, WIDE, 1.0), r"`stage` must be .* Received: stage=1\.0"),
        (visualize.feature_maps, (wide, WIDE, True), "`stage` must be .* Received: stage=True"),
        (visualize.gradcam, (wide, WIDE * np.nan), "`images` must hold finite numbers"),
        (visualize.cross_attention, (wide, WIDE + np.inf), "`images` must hold finite numbers"),
        (visualize.cross_attention, (wide, base.pixels()), r"`images` must be \(B, 40, 64, 3\)"),
        (visualize.cross_attention, (wide, WIDE[0]), r"Received: a shape of \(40, 64, 3\)"),
    ]
    for function, arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            function(*arguments)


def test_plots_show_the_arrays(wide, tmp_path):
    cross, own, features, cam = all_functions(wide, WIDE)
    figure = visualize.plot_cross_attention(WIDE[1], cross, index=1, path=tmp_path / "a.png")
    assert len(figure.axes) == 2 * 3
    shown = figure.axes[4].images[1].get_array()  # the small branch in stage 1
    mean = cross[1]["small"].patches[1].mean(axis=0)
    np.testing.assert_allclose(shown, resize_maps(mean, 40, 64), rtol=1e-5)
    itself = cross[1]["small"].itself[1].mean()
    assert figure.axes[4].get_title() == f"stage 1: small reads large\nitself {itself:.0%}"
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), WIDE[1] / 255, rtol=1e-5)

    figure = visualize.plot_rollout(WIDE[0], own, path=tmp_path / "b.png")
    shown = figure.axes[2].images[1].get_array()
    np.testing.assert_allclose(shown, resize_maps(own["large"].patches[0], 40, 64), rtol=1e-5)

    figure = visualize.plot_gradcam(WIDE[0], cam, path=tmp_path / "c.png")
    titles = ["image", "small branch", "large branch", "both branches"]
    assert [axis.get_title() for axis in figure.axes] == titles
    np.testing.assert_allclose(figure.axes[3].images[1].get_array(), cam["both"][0], atol=1e-6)

    figure = visualize.plot_feature_maps(features, index=1, channels=9, path=tmp_path / "d.png")
    assert len(figure.axes) == 2 * 9
    shown = figure.axes[0].images[0].get_array()
    assert any(np.array_equal(shown, features["small"][1, :, :, c]) for c in range(16))
    other = visualize.plot_feature_maps(features, index=1, channels=9, seed=1)
    drawn = ([x.images[0].get_array() for x in plot.axes[:9]] for plot in (figure, other))
    assert not np.array_equal(*drawn)
    assert len(visualize.plot_feature_maps(features).axes) == 16 + 25  # 24 channels on 5 x 5
    for name in "abcd":
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("value", "limits"), [(0.0, (0, 1)), (0.25, (0.25, 0.5))])
def test_a_constant_map_lets_the_photograph_show_through(value, limits):
    flat = {name: np.full((1, 40, 64), value, "float32") for name in ("small", "large", "both")}
    layer = visualize.plot_gradcam(WIDE[0], flat).axes[1].images[1]
    assert layer.get_clim() == limits
    assert (layer.to_rgba(layer.get_array())[..., 3] == 0).all()


def test_one_stage_is_drawn_under_its_number(wide):
    cross = visualize.cross_attention(wide, WIDE)
    figure = visualize.plot_cross_attention(WIDE[0], cross, stages=[1])
    assert [axis.get_title().split("\n")[0] for axis in figure.axes] == [
        "stage 1",
        "stage 1: small reads large",
        "stage 1: large reads small",
    ]
    shown = figure.axes[1].images[1].get_array()
    mean = cross[1]["small"].patches[0].mean(axis=0)
    np.testing.assert_allclose(shown, resize_maps(mean, 40, 64), rtol=1e-5)
    with pytest.raises(ValueError, match=r"`stages` must be one of 0, 1\. Rec.* stages=2"):
        visualize.plot_cross_attention(WIDE[0], cross, stages=[2])
    with pytest.raises(ValueError, match=r"`stages` must .* least one .* Received: stages=\[\]"):
        visualize.plot_cross_attention(WIDE[0], cross, stages=[])


def test_a_model_that_resizes_its_images_itself():
    tensor = keras.layers.Resizing(40, 64)(keras.Input((None, None, 3)))
    model = base.small_model(input_tensor=tensor)
    maps = visualize.gradcam(model, base.pixels(2, 60, 80), 0)
    assert maps["small"].shape == (2, 5, 8)
    with pytest.raises(ValueError, match=r"`images` must be \(B, None, None, 3\)"):
        visualize.gradcam(model, base.pixels(2, 60, 80)[..., :1], 0)


def test_plots_of_another_image_than_those_of_the_batch_are_refused(wide):
    maps = visualize.feature_maps(wide, WIDE)
    cases = [
        (visualize.plot_cross_attention, (WIDE[0], visualize.cross_attention(wide, WIDE))),
        (visualize.plot_rollout, (WIDE[0], visualize.attention_rollout(wide, WIDE))),
        (visualize.plot_gradcam, (WIDE[0], visualize.gradcam(wide, WIDE))),
        (visualize.plot_feature_maps, (maps,)),
    ]
    for plot, arguments in cases:
        with pytest.raises(ValueError, match=r"`index` must be .*, below 2\. Received: index=2"):
            plot(*arguments, index=2)
    for plot, (_, *others) in cases[:3]:
        with pytest.raises(ValueError, match=r"one image, .* shape \(2, 40, 64, 3\)"):
            plot(WIDE, *others)
        with pytest.raises(ValueError, match=r"not empty\. .* shape \(0, 64, 3\)"):
            plot(WIDE[0, :0], *others)
    with pytest.raises(ValueError, match=r"`index` must be .*, below 2\. Received: index=0\.0"):
        visualize.plot_feature_maps(maps, index=0.0)
    with pytest.raises(ValueError, match="`maps` must hold at least one branch"):
        visualize.plot_feature_maps({})
    with pytest.raises(ValueError, match=r"`index` must be .*, below 0\. "):
        visualize.plot_gradcam(*cases[2][1], scores=[])
    with pytest.raises(ValueError, match=r"`path` must have an ending.* Received: figure$"):
        visualize.plot_feature_maps(maps, path="figure")


def test_images_in_0_to_1_are_warned_of(wide, caplog):
    pixels._say_once.cache_clear()
    visualize.cross_attention(wide, WIDE / 255)
    assert "these images are in 0..1" in caplog.text


def test_numpy_numbers_name_a_stage(wide):
    found, wanted = (visualize.feature_maps(wide, WIDE, x)["large"] for x in (np.int64(0), 0))
    np.testing.assert_array_equal(found, wanted)


def test_the_image_shows_through_and_a_bar_has_the_values(wide):
    """The least value is transparent, the greatest nearly opaque; lightness grows between."""
    own = visualize.attention_rollout(wide, WIDE)
    figure = visualize.plot_rollout(WIDE[0], own)
    image, drawn = figure.axes[1].images
    np.testing.assert_allclose(image.get_array(), WIDE[0].mean(axis=-1) / 255, rtol=1e-5)
    values = drawn.get_array()
    assert drawn.get_clim() == (values.min(), values.max())
    colours = drawn.cmap(np.linspace(0, 1, 256))
    assert colours[0, 3] == 0
    assert 0.7 < colours[-1, 3] < 1
    assert (np.diff(colours[:, 3]) > 0).all()
    assert (np.diff(colours[:, :3] @ [0.2126, 0.7152, 0.0722]) > 0).all()
    (bar,) = figure.axes[1].child_axes
    figure.canvas.draw()
    ticks = [label.get_text() for label in bar.get_yticklabels()]
    inside = [float(tick.rstrip("%")) / 100 for tick in ticks if tick.endswith("%")]
    assert len(inside) == len(ticks) >= 3
    assert np.ptp(inside) == pytest.approx(np.ptp(values), rel=0.5)


def test_the_labels_of_a_bar_tell_close_values_apart():
    shares = np.linspace(0.0992, 0.1012, 8).reshape(1, 2, 4)
    maps = {"large": visualize.Attention(shares, np.array([0.2]))}
    figure = visualize.plot_rollout(WIDE[0], maps)
    (bar,) = figure.axes[1].child_axes
    figure.canvas.draw()
    drawn = [float(label.get_text().rstrip("%")) for label in bar.get_yticklabels()]
    np.testing.assert_allclose(drawn, 100 * bar.get_yticks(), atol=1e-6)
    assert len(set(drawn)) == len(drawn) >= 4


def test_an_even_map_of_one_branch_can_be_drawn(tmp_path):
    maps = {"large": np.zeros((1, 2, 4)), "both": np.zeros((1, 40, 64))}
    figure = visualize.plot_gradcam(WIDE[0], maps, path=tmp_path / "a.png")
    assert [axis.get_title() for axis in figure.axes] == ["image", "large branch"]
    assert figure.axes[1].images[1].get_array().max() == 0


@pytest.mark.parametrize("channels", [1, 5])
def test_channels_that_are_no_colours_are_drawn_by_their_mean(channels):
    image = np.random.default_rng(0).uniform(0, 255, (8, 12, channels)).astype("float32")
    figure = visualize.plot_gradcam(image, {"large": np.ones((1, 2, 3), "float32")})
    for axis in figure.axes[:2]:
        np.testing.assert_allclose(axis.images[0].get_array(), image.mean(-1) / 255, atol=1e-6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
def test_class_scores_are_the_answers(activation):
    labels = ("ant", "bee", "cat", "dog", "eel")
    model = base.small_model(
        input_shape=(40, 64, 3), classifier_activation=activation, labels=labels
    )
    answers = model.predict_on_batch(WIDE)
    if activation is None:
        answers = np.exp(answers) / np.exp(answers).sum(axis=1, keepdims=True)
    found = visualize.class_scores(model, WIDE)
    assert [name for name, _ in found] == [labels[index] for index in answers.argmax(axis=1)]
    np.testing.assert_allclose([score for _, score in found], answers.max(axis=1), atol=1e-5)
    found = visualize.class_scores(model, WIDE, classes=[3, 0])
    assert [name for name, _ in found] == ["dog", "ant"]
    assert visualize.class_scores(model, WIDE, classes=["dog", "ant"]) == found
    for text in (["dog", "ant"], [b"dog", b"ant"]):  # as pandas and TensorFlow hold it
        assert visualize.class_scores(model, WIDE, np.array(text, object)) == found
    assert visualize.class_scores(model, WIDE, np.array([b"dog", b"ant"])) == found
    maps = [visualize.gradcam(model, WIDE, classes)["both"] for classes in ("cat", 2)]
    np.testing.assert_array_equal(*maps)
    np.testing.assert_allclose([score for _, score in found], answers[[0, 1], [3, 0]], atol=1e-5)
    figure = visualize.plot_gradcam(WIDE[1], visualize.gradcam(model, WIDE, 0), 1, scores=found)
    assert figure.get_suptitle() == f"ant, {answers[1, 0]:.0%}"


@pytest.mark.parametrize("function", [visualize.gradcam, visualize.class_scores])
def test_a_model_that_answers_nan_has_no_class_to_explain(function):
    """The highest of its logits would be that of the first class."""
    model = base.small_model()
    model.branches["large"].head.bias.assign(np.full(5, np.nan, "float32"))
    with pytest.raises(ValueError, match="`model` must answer with finite numbers"):
        function(model, base.pixels())


def test_class_scores_of_one_class_without_labels():
    model = base.small_model(classes=1)
    found = visualize.class_scores(model, base.pixels())
    assert [name for name, _ in found] == ["0", "0"]
    answers = model.predict_on_batch(base.pixels())[:, 0]
    np.testing.assert_allclose([score for _, score in found], answers, atol=1e-5)


VALUES = """
import sys, keras, numpy as np
from tests import base
from tests.test_visualize_models import all_functions, one_encoder, visualize
if keras.backend.backend() == "torch":
    values = all_functions(base.small_model(), base.pixels())
else:
    values = visualize.gradcam(one_encoder(), base.pixels(2, 32, 32), stage=0)
np.savez(sys.argv[1], *keras.tree.flatten(values))
"""


def one_encoder():
    """The least that has a gradient: JAX compiles each operation when it first meets it."""
    return base.small_model(base.small_config(small=None, fusion="none", num_stages=1))


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_values_are_the_same_on(backend, tmp_path):
    base.skip_without(backend)
    settings = {"KERAS_BACKEND": backend}
    base.run_python(VALUES, tmp_path / "values.npz", **settings)
    if backend == "torch":
        expected = all_functions(base.small_model(), base.pixels())
    else:
        expected = visualize.gradcam(one_encoder(), base.pixels(2, 32, 32), stage=0)
    expected = keras.tree.flatten(expected)
    with np.load(tmp_path / "values.npz") as found:
        assert len(found.files) == len(expected)
        for name, x in zip(found.files, expected, strict=True):
            np.testing.assert_allclose(found[name], x, atol=1e-4, rtol=1e-3)
