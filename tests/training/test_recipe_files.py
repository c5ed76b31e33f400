"""Recipes in the user's own files."""

import pathlib
import textwrap

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit.training import TrainConfig, main, parse_config
from keras_crossvit.training.lora import copy_weights
from keras_crossvit.training.recipes import run_file
from tests import base

OWN_DESIGN = """
    import dataclasses
    import keras
    import keras_crossvit as kc
    from keras_crossvit.training import TrainConfig


    @kc.layers.register_fusion("tests_swap_means")
    class TestsSwapMeans(kc.layers.Fusion):
        def build(self, input_shape):
            (_, _, small), (_, _, large) = input_shape
            self.to_small = keras.layers.Dense(small, name="to_small")
            self.to_large = keras.layers.Dense(large, name="to_large")
            self.to_small.build((None, None, large))
            self.to_large.build((None, None, small))

        def call(self, tokens, training=False):
            small, large = (keras.ops.mean(x, axis=1, keepdims=True) for x in tokens)
            return [tokens[0] + self.to_small(large), tokens[1] + self.to_large(small)]


    kc.register_preset("tests_swap_means")(
        kc.CrossViTConfig(
            small=kc.BranchConfig(24, 12, embed_dim=8, depth=1, num_heads=2, mlp_ratio=2),
            large=kc.BranchConfig(32, 16, embed_dim=12, depth=1, num_heads=3, mlp_ratio=2),
            num_stages=1,
            fusion="tests_swap_means",
        )
    )
    RECIPE = TrainConfig(
        model="tests_swap_means",
        dataset="digits",
        output_dir="run",
        train_split="train[:32]",
        validation_split="test[:16]",
        epochs=1,
        batch_size=16,
        learning_rate=1e-3,
        warmup_epochs=0,
        augment="none",
    )
"""


@pytest.fixture
def write(tmp_path):
    def write(code, name="mine.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(code), encoding="utf-8")
        return str(path)

    return write


def refusal(recipe, capsys):
    """The message with which the command refuses a recipe."""
    with pytest.raises(SystemExit) as ended:
        parse_config({"digits": None}, ["--recipe", recipe])
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.main_job
def test_design_of_ones_own_trains_by_a_recipe(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = main({}, ["--recipe", write(OWN_DESIGN), "--data-dir", "data"])
    fuse = result["model"].stages[0].fuse
    assert type(fuse).__name__ == "TestsSwapMeans"
    loaded = keras.saving.load_model("run/model.keras", compile=False)
    assert isinstance(loaded, kc.CrossViT)
    np.testing.assert_array_equal(loaded.stages[0].fuse.to_small.kernel, fuse.to_small.kernel)


def test_weights_of_layers_without_a_name_are_copied():
    @kc.layers.register_fusion("tests_without_names")
    class TestsWithoutNames(kc.layers.Fusion):
        def build(self, input_shape):
            (_, _, small), (_, _, large) = input_shape
            self.to_small = keras.layers.Dense(small)
            self.to_small.build((None, None, large))

        def call(self, tokens, training=False):
            return [tokens[0] + self.to_small(tokens[1][:, :1]), tokens[1]]

    config = base.small_config(fusion="tests_without_names", num_stages=1)
    source, target = (base.small_model(config) for _ in range(2))
    paths = [{v.path for v in model.weights if "/dense" in v.path} for model in (source, target)]
    assert len(paths[0] | paths[1]) == 4
    for variable in source.trainable_weights:
        variable.assign(variable + 1.0)
    copy_weights(source, target)
    for ours, copied in zip(base.values_of(source), base.values_of(target), strict=True):
        np.testing.assert_array_equal(ours, copied)


def test_flags_replace_values_of_a_file(write):
    code = """
        from keras_crossvit.training import TrainConfig
        RECIPE = TrainConfig(
            model="crossvit_9", dataset="digits", output_dir="run", epochs=3, batch_size=8,
            learning_rate=0.5, warmup_epochs=1,
        )
    """
    config, only_check = parse_config({}, ["--recipe", write(code), "--epochs", "7"])
    assert isinstance(config, TrainConfig)
    assert (config.epochs, config.batch_size, config.learning_rate) == (7, 8, 0.5)
    assert not only_check


def test_no_such_recipe(capsys, tmp_path):
    assert "must be one of digits, or the path of a Python file. Received: --recipe dig" in (
        refusal("dig", capsys)
    )
    assert refusal("digist", capsys).strip().endswith("digist. Did you mean 'digits'?")
    missing = str(tmp_path / "none.py")
    assert f"must name an existing file that ends in .py. Received: --recipe {missing}" in refusal(
        missing, capsys
    )


def test_file_that_cannot_be_run_says_which_and_why(write, capsys):
    path = write("import nothing_of_that_name\n")
    message = refusal(path, capsys)
    assert f"Received: {path}, which ends in ModuleNotFoundError: No module named" in message
    message = refusal(write("def :\n", "syntax.py"), capsys)
    assert "syntax.py, which ends in SyntaxError" in message


def test_functions_of_a_file_import_its_neighbours_when_they_are_called(write):
    write("ANSWER = 42\n", "neighbour_of_mine.py")
    path = write("def later():\n    from neighbour_of_mine import ANSWER\n    return ANSWER\n")
    assert run_file(pathlib.Path(path)).later() == 42


def test_file_that_registers_a_name_twice(write, capsys):
    code = """
        import keras_crossvit as kc
        config = kc.CrossViTConfig.preset("crossvit_9")
        kc.register_preset("crossvit_15")(config)
    """
    message = refusal(write(code), capsys)
    assert "mine.py, which ends in ValueError: `name` must be new" in message
    assert "Received: name='crossvit_15'" in message
    assert kc.CrossViTConfig.preset("crossvit_15").large.depth == 5


def test_file_without_a_recipe(write, capsys):
    assert "assigns a TrainConfig to RECIPE" in refusal(write("RECIPE = 3\n"), capsys)
