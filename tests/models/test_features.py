"""Features, attention maps and the pyramid as models that share the layers of another."""

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit import visualize
from keras_crossvit.common.bicubic import bicubic_matrix
from keras_crossvit.visualize.graph import Graph
from keras_crossvit.weights.names import named_variables
from tests import base, reference

pytestmark = pytest.mark.slow

IMAGES = base.pixels(height=40, width=64)
WIDE = {"input_shape": (40, 64, 3)}


@pytest.fixture(scope="module")
def model():
    return base.small_model(**WIDE)


@pytest.fixture(scope="module")
def values(model):
    """`{name: array}` of all points."""
    return run(kc.feature_model(model, kc.feature_names(model)))


@pytest.fixture(scope="module")
def by_hand(model):
    """The tokens of each encoder and stage, by calling the layers on arrays."""
    found = {}
    for index, tokens in enumerate(Graph(model).tokens_before(IMAGES)):
        stage = model.stages[index]
        for branch, blocks in (("small", stage.small_blocks), ("large", stage.large_blocks)):
            for i, block in enumerate(blocks):
                name = f"stage_{index}/{branch}/block_{i}"
                found[f"{name}/attention"] = block.attention.attention_map(
                    block.norm1(tokens[branch])
                )
                tokens[branch] = found[name] = block(tokens[branch])
        after = dict(zip(tokens, stage.fuse(list(tokens.values())), strict=True))
        found.update({f"stage_{index}/{branch}": x for branch, x in after.items()})
    for branch, x in after.items():
        found[f"{branch}/norm"] = model.branches[branch].norm(x)
    return {name: np.array(x) for name, x in found.items()}


def run(model, images=IMAGES):
    return keras.tree.map_structure(np.array, model(images))


def assert_equal(ours, theirs, atol=1e-5):
    keras.tree.assert_same_structure(ours, theirs)
    for a, b in zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def test_names(model):
    names = kc.feature_names(model)
    assert names[:2] == ["small/patch_embed", "small/position_embedding"]
    assert "stage_1/large/block_1/attention" in names
    assert "stage_0/small/cross_attention" in names
    assert names[-4:] == ["small/rollout", "small/norm", "large/rollout", "large/norm"]
    pairwise = base.small_model(base.small_config(fusion="pairwise", class_token=False))
    assert not [x for x in kc.feature_names(pairwise) if "cross" in x or "rollout" in x]


def test_tokens_are_those_of_the_layers(values, by_hand):
    assert len(by_hand) == 2 * (3 + 3 + 2) + 2
    assert_equal({name: values[name] for name in by_hand}, by_hand)


def test_a_point_alone_has_the_value_that_it_has_among_all(model, values):
    for name in kc.feature_names(model):
        if "stage_0" in name or name == "small/norm":
            assert_equal(run(kc.feature_model(model, name)), values[name])


def test_macs_of_an_attention_map(model):
    """The encoder's projections to queries and keys, made for values as well, and the scores."""
    block = "stage_0/large/block_0"  # 2 x 4 patches
    without, alone = (
        kc.count_macs(kc.feature_model(model, names))
        for names in (block, [block, f"{block}/attention"])
    )
    assert alone - without == 3 * 9 * 24**2 + 9**2 * 24


def test_attention_is_what_visualize_shows(model, values):
    for index, stage in enumerate(visualize.cross_attention(model, IMAGES)):
        for branch, shown in stage.items():
            ours = values[f"stage_{index}/{branch}/cross_attention"]
            np.testing.assert_allclose(ours[..., 0], shown.itself, atol=1e-6)
            np.testing.assert_allclose(ours[..., 1:], shown.patches.reshape(*ours.shape[:2], -1))
    for branch, shown in visualize.attention_rollout(model, IMAGES).items():
        ours = values[f"{branch}/rollout"]
        np.testing.assert_allclose(ours.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(ours[:, 0], shown.itself, atol=1e-6)
        np.testing.assert_allclose(ours[:, 1:], shown.patches.reshape(2, -1), atol=1e-6)


def test_maps_are_the_patch_tokens_on_their_grid(model, values):
    maps = run(kc.feature_model(model, list(values), maps=True))
    for name, tokens in values.items():
        branch = name.split("/")[1 if name.startswith("stage") else 0]
        if name.endswith("cross_attention"):
            branch = {"small": "large", "large": "small"}[branch]
        if name.endswith("/attention"):
            wanted = np.moveaxis(tokens[:, :, 0, 1:], 1, -1)
        elif name.endswith("cross_attention"):
            wanted = np.moveaxis(tokens[:, :, 1:], 1, -1)
        elif name.endswith("rollout"):
            wanted = tokens[:, 1:, None]
        else:
            wanted = tokens if name.endswith("patch_embed") else tokens[:, 1:]
        wanted = wanted.reshape(2, *model.grids[branch], -1)
        np.testing.assert_allclose(maps[name], wanted, atol=1e-5, err_msg=name)


def test_without_class_tokens_maps_keep_all_tokens():
    model = base.small_model(base.small_config(class_token=False))
    names = ["stage_1/large", "stage_1/small/block_0/attention", "stage_1/small/cross_attention"]
    tokens = run(kc.feature_model(model, names), base.pixels())
    maps = run(kc.feature_model(model, names, maps=True), base.pixels())
    assert_equal(maps[names[0]], tokens[names[0]].reshape(2, 2, 2, 24))
    mean = np.moveaxis(tokens[names[1]].mean(axis=2), 1, -1)
    assert_equal(maps[names[1]], mean.reshape(2, 5, 5, 2))
    # The mean of the tokens is the query, and comes first.
    assert_equal(maps[names[2]], np.moveaxis(tokens[names[2]][..., 1:], 1, -1).reshape(2, 2, 2, 3))


TIMM = {
    "patch_embed.1": "large/patch_embed",
    "blocks.0": ["stage_0/small", "stage_0/large"],
    "blocks.1.blocks.0.0": "stage_1/small/block_0",
    "blocks.1.blocks.1.1": "stage_1/large/block_1",
    "blocks.1.blocks.1.1.attn.attn_drop": "stage_1/large/block_1/attention",
    "norm.0": "small/norm",
}


def test_timm_names(model, values):
    theirs = run(kc.feature_model(model, list(TIMM)))
    wanted = {name: keras.tree.map_structure(values.get, ours) for name, ours in TIMM.items()}
    assert_equal(theirs, wanted)
    variables = named_variables(model)
    for name in TIMM:
        module = name.removesuffix(".attn_drop")
        assert any(variable.startswith(f"{module}.") for variable in variables), name


def test_one_branch():
    model = base.small_model(base.small_config(small=None, fusion="none"), input_shape=(32, 48, 3))
    images = base.pixels(height=32, width=48)
    names = ["blocks.2", "norm", "patch_embed", "blocks.2.attn.attn_drop"]
    ours = ["large/block_2", "large/norm", "large/patch_embed", "large/block_2/attention"]
    assert set(ours) < set(kc.feature_names(model))
    theirs, values = (run(kc.feature_model(model, x), images) for x in (names, ours))
    assert_equal([theirs[x] for x in names], [values[x] for x in ours])
    before, after = (
        np.array(keras.Model(model.input, model.stages[i].output)(images)) for i in (1, 2)
    )
    np.testing.assert_allclose(values["large/block_2"], after, atol=1e-5)
    block = model.stages[2]
    wanted = block.attention.attention_map(block.norm1(before))
    np.testing.assert_allclose(values["large/block_2/attention"], wanted, atol=1e-5)
    pyramid = kc.feature_pyramid(model, channels=4)
    assert {x: y.shape[1:3] for x, y in pyramid.output.items()} == {
        "p2": (8, 12),
        "p3": (4, 6),
        "p4": (2, 3),
        "p5": (1, 2),
    }


def test_a_model_without_a_top(model, values):
    backbone = base.small_model(include_top=False, **WIDE)
    for layer in backbone.layers:
        layer.set_weights(model.get_layer(layer.name).get_weights())
    names = ["stage_0/small/block_0", "small/norm", "large/norm"]
    found = run(kc.feature_model(backbone, names))
    assert_equal(found, {name: values[name] for name in names})
    assert_equal([found["small/norm"], found["large/norm"]], run(backbone))


def test_separate_images(model, values):
    separate = base.small_model(inputs="separate", **WIDE)
    names = ["stage_0/large", "large/patch_embed", "stage_1/small/block_0"]
    both = run(kc.feature_model(separate, names), [IMAGES, IMAGES])
    assert_equal(both, {name: values[name] for name in names})
    large = kc.feature_model(separate, "large/patch_embed")
    assert_equal(run(large, [0 * IMAGES, IMAGES]), values["large/patch_embed"])


def test_the_model_stays_as_it_is(model, tmp_path):
    before, weights = model.predict_on_batch(IMAGES), base.values_of(model)
    outputs = [stage.output for stage in model.stages]
    features = kc.feature_model(model, ["stage_0/small/block_0", "large/norm"])
    assert all(
        features.get_layer("large_norm") is layers.norm for layers in [model.branches["large"]]
    )
    assert {id(x) for x in features.weights} < {id(x) for x in model.weights}
    kc.feature_pyramid(model)
    np.testing.assert_array_equal(model.predict_on_batch(IMAGES), before)
    assert_equal(base.values_of(model), weights, atol=0)
    assert keras.tree.flatten(outputs) == keras.tree.flatten([x.output for x in model.stages])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict_on_batch(IMAGES), before)


@pytest.mark.parametrize("maps", [False, True])
def test_saved_and_loaded(maps, model, tmp_path):
    features = kc.feature_model(model, kc.feature_names(model), maps=maps)
    features.save(tmp_path / "features.keras")
    again = keras.saving.load_model(tmp_path / "features.keras")
    assert_equal(run(again), run(features), atol=0)
    assert len(again.weights) == len(features.weights)  # no stage is there twice


def test_exported(model, values, tmp_path):
    import tensorflow as tf

    names = ["stage_0/large/block_1", "stage_1/small/cross_attention", "large/rollout"]
    kc.feature_model(model, names).export(tmp_path / "export", verbose=False)
    serve = tf.saved_model.load(tmp_path / "export").signatures["serving_default"]
    found = {name: np.array(x) for name, x in serve(tf.constant(IMAGES)).items()}
    assert_equal(found, {name: values[name] for name in names})


# In the last encoder, what follows its attention plays no part in a rollout.
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_loss_on_attention_trains_the_encoders():
    model = base.small_model(drop_path_rate=0.2, gradient_checkpointing=True)
    rollout = kc.feature_model(model, "large/rollout", maps=True)
    rollout.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False)
    target = np.zeros((2, 2, 2, 1), "float32")
    target[:, 0, 1] = 1
    query = model.stages[0].large_blocks[0].attention.qkv.kernel
    before = np.array(query)
    losses = rollout.fit(base.pixels(), target, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]
    assert np.abs(np.array(query) - before).max() > 0


def test_frozen_stages_are_not_trained():
    model = base.small_model()
    kc.freeze(model, stages=1)
    features = kc.feature_model(model, ["stage_0/small/block_0", "stage_1/large/block_1"])
    assert [x.path for x in features.trainable_variables] == [
        x.path for x in model.stages[1].trainable_variables
    ]


def test_half_precision():
    model = base.small_model(dtype="mixed_bfloat16")
    names = ["stage_0/small/block_0/attention", "stage_1/large", "small/rollout"]
    for maps in (False, True):
        found = kc.feature_model(model, names, maps)(base.pixels())
        assert [keras.backend.standardize_dtype(found[x].dtype) for x in names] == [
            "bfloat16",
            "bfloat16",
            "float32",
        ]


def test_maps_and_rollout_are_as_precise_as_the_model(model, values):
    """Whatever policy new layers get."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    name = "stage_1/small/cross_attention"
    cross = run(kc.feature_model(model, name, maps=True))
    wanted = np.moveaxis(values[name][..., 1:], 1, -1).reshape(cross.shape)
    np.testing.assert_allclose(cross, wanted, atol=1e-6)
    for branch, shown in visualize.attention_rollout(model, IMAGES).items():
        np.testing.assert_allclose(shown.itself, values[f"{branch}/rollout"][:, 0], atol=1e-6)


def test_pyramid(model, tmp_path):
    pyramid = kc.feature_pyramid(model, channels=8)
    strides = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}
    found = run(pyramid)
    for level, stride in strides.items():
        grid = (-(-40 // stride), -(-64 // stride))
        assert found[level].shape == (2, *grid, 8) == (2, *pyramid.output[level].shape[1:])
        # The last layer is a norm with its initial weights.
        np.testing.assert_allclose(found[level].mean(axis=-1), 0, atol=1e-5)
    assert isinstance(pyramid.get_layer("small_p5_pool"), keras.layers.MaxPooling2D)
    own = {id(x) for x in model.weights}
    new = [x for x in pyramid.trainable_variables if id(x) not in own]
    # Per branch: three deconvolutions and a norm, and a convolution with a norm per level.
    assert len(new) == 2 * (3 * 2 + 2 + 4 * 3) + 4 * 3
    pyramid.save(tmp_path / "pyramid.keras")
    assert_equal(run(keras.saving.load_model(tmp_path / "pyramid.keras")), found, atol=0)


def test_a_pyramid_whatever_the_global_data_format(model):
    before = kc.feature_pyramid(model, channels=8).output_shape
    keras.config.set_image_data_format("channels_first")
    try:
        assert kc.feature_pyramid(model, channels=8).output_shape == before
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize(("level", "stride"), [("p2", 4), ("p4", 16), ("p5", 32)])
def test_a_level_is_the_sum_of_both_branches(level, stride, model, values):
    pyramid = kc.feature_pyramid(model, channels=8)

    def deconv(x, name):
        kernel, bias = map(np.array, pyramid.get_layer(name).weights)
        x = np.einsum("bijc,pqoc->bipjqo", x, kernel) + bias
        return x.reshape(len(x), 2 * x.shape[1], 2 * x.shape[3], -1)

    def scaled(x, name):
        if level == "p5":
            x = np.pad(x, [(0, 0), *((0, n % 2) for n in x.shape[1:3]), (0, 0)], mode="edge")
            return x.reshape(len(x), x.shape[1] // 2, 2, -1, 2, x.shape[3]).max(axis=(2, 4))
        if level == "p2":
            x = deconv(x, f"{name}_deconv_0")
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
            return deconv(reference.gelu(x), f"{name}_deconv_1").astype("float32")
        return x

    def conv_and_norm(x, name):
        kernel = np.array(pyramid.get_layer(f"{name}_conv").kernel)
        x = np.array(keras.ops.conv(x, kernel, padding="same"))
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)

    total = 0
    for branch in ("small", "large"):
        x = values[f"stage_1/{branch}"][:, 1:].reshape(2, *model.grids[branch], -1)
        x = conv_and_norm(scaled(x, f"{branch}_{level}"), f"{branch}_{level}")
        rows, columns = (
            bicubic_matrix(old, -(-side // stride))
            for old, side in zip(x.shape[1:3], (40, 64), strict=True)
        )
        total = total + np.einsum("ri,bijc,sj->brsc", rows, x, columns)
    wanted = conv_and_norm(total.astype("float32"), level)
    np.testing.assert_allclose(run(pyramid)[level], wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("stage_1/lrage", "names='stage_1/lrage'. Did you mean 'stage_1/large'?"),
        (["norm.0", "blocks.1.blocks.1.2"], "names='blocks.1.blocks.1.2'. Did you mean 'blocks"),
        ([3], "Received: names=3"),
        ([], "`names` must hold at least one name. Received: names=[]"),
    ],
)
def test_bad_names(names, message, model):
    with pytest.raises(ValueError, match="`names` must") as error:
        kc.feature_model(model, names)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_models_and_channels(model):
    other = keras.Sequential([model])
    for call in (kc.feature_names, kc.feature_pyramid, lambda x: kc.feature_model(x, "norm.0")):
        with pytest.raises(ValueError, match=r"`model` must be a CrossViT\. Received: Sequential"):
            call(other)
    with pytest.raises(
        ValueError, match=r"`channels` must be a positive integer\. Rec.*channels=0"
    ):
        kc.feature_pyramid(model, channels=0)


def test_keras_exports_them_to_onnx(model, tmp_path):
    """With the images alone as input, although the model normalises them."""
    base.skip_without("tf2onnx")
    base.skip_without("onnxruntime")
    import onnxruntime

    features = kc.feature_model(model, "small/norm")
    expected = np.asarray(features(IMAGES))
    features.export(tmp_path / "features.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "features.onnx")
    assert [each.name for each in session.get_inputs()] == ["images"]
    (found,) = session.run(None, {"images": IMAGES})
    np.testing.assert_allclose(found, expected, atol=2e-5)
