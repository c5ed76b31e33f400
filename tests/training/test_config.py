"""A run's values, and the command line that changes them."""

import dataclasses
import json

import numpy as np
import pytest

from keras_crossvit.data import InputConfig
from keras_crossvit.training import TrainConfig, parse_config

RECIPE = TrainConfig(
    model="crossvit_digits",
    dataset="digits",
    output_dir="runs/x",
    epochs=10,
    batch_size=32,
    learning_rate=1e-3,
)

# Older runs resume by these names, and commands with `--set` use them.
NAMES = """
    accumulation_steps augment batch_size best channels checkpoint_steps class_weights clip_norm
    crop_area crop_ratio cutmix_alpha data_dir dataset distillation distillation_alpha
    distillation_temperature drop_path_rate ema_momentum epochs erasing_probability
    exif_orientation final_learning_rate freeze_stages gradient_checkpointing horizontal_flip
    input_size jit_compile label_smoothing layer_decay learning_rate learning_rate_batch_size
    lora_rank loss max_restarts mixing_batch_size mixup_alpha model optimizer output_dir
    parallel_calls patience precision randaugment_magnitude randaugment_num_ops randaugment_std
    repeated_augmentation reset_heads resume rotation seed steps_per_call strategy teacher
    train_split translation validation_split warmup_epochs weight_decay weights worker_timeout
"""


def parse(*arguments):
    return parse_config({"digits": RECIPE}, ["--recipe", "digits", *arguments])[0]


def test_a_recipe_alone_is_itself():
    assert parse() == RECIPE


@pytest.mark.parametrize("nothing", ["None", "null"])
def test_a_setting_without_a_value(nothing):
    assert parse("--set", f"clip_norm={nothing}", f"best={nothing}").clip_norm is None


@pytest.mark.parametrize(
    ("text", "value"), [("True", True), ("true", True), ("False", False), ("false", False)]
)
def test_a_setting_that_is_true_or_false(text, value):
    assert parse("--set", f"exif_orientation={text}").exif_orientation is value


@pytest.mark.parametrize("nothing", ["None", "none"])
def test_random_weights_instead_of_the_recipes(nothing):
    recipes = {"fine": dataclasses.replace(RECIPE, weights="imagenet")}
    config, _ = parse_config(recipes, ["--recipe", "fine", "--weights", nothing])
    assert config.weights is None


def test_flags_and_settings_replace_values():
    config = parse(
        "--epochs", "20", "--data-dir", "d", "--set", "weight_decay=0.1", "input_size=64"
    )
    changed = {"epochs": 20, "data_dir": "d", "weight_decay": 0.1, "input_size": 64}
    assert config == dataclasses.replace(RECIPE, **changed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "`epochs` must be a positive integer. Received: epochs=0"),
        (["--strategy", "cloud"], "argument --strategy: invalid choice: 'cloud' (choose from"),
        (
            ["--set", "strategy=cloud"],
            "`strategy` must be one of 'auto', 'data_parallel', 'mirrored'",
        ),
        (["--set", "precision=int3"], "`precision` must be one of"),
        (["--set", "mixup_alpha=much"], "`mixup_alpha` must be a number from 0"),
        (["--set", "randaugment_magnitude=11"], "must be a number in [0, 10]"),
        (["--set", "ema_momentum=1"], "`ema_momentum` must be a number in [0, 1)"),
        (["--set", "accumulation_steps=0"], "`accumulation_steps` must be a positive integer"),
        (["--set", "dataset=5"], "`dataset` must be a string. Received: dataset=5"),
        (["--set", "output_dir=null"], "`output_dir` must be a string. Received: output_dir=None"),
        (["--set", "train_split=true"], "`train_split` must be a string. Received: train_split="),
        (["--set", "train_split=null"], "`train_split` must be a string. Received: train_split="),
        (["--set", "crop_ratio=0"], "`crop_ratio` must be a number in (0, 1]. Received: crop_"),
        (["--set", "crop_ratio=87.5"], "`crop_ratio` must be a number in (0, 1]. Received: crop_"),
        (["--set", "crop_ratio=big"], "must be a number in (0, 1]. Received: crop_ratio='big'"),
        (["--set", "seed=-1"], "`seed` must be an integer from 0"),
        (["--set", "augment=heavy"], "`augment` must be one of 'kerascv', 'none', 'reference'"),
        (["--set", "colour=red"], "`--set` must be KEY=VALUE with a key of"),
        (["--set", "best"], "Received: 'best'. Did you mean 'best=VALUE'?"),
        (["--set", "learning_rat=1"], "'learning_rat=1'. Did you mean 'learning_rate'?"),
        (["--set", "warmup_epochs=10"], "`warmup_epochs` must be at least 0 and less than"),
        (["--set", "crop_area=[0.5, 2]"], "`crop_area` must be two shares"),
        (["--set", "loss=hinge"], "`loss` must be one of 'sigmoid', 'softmax'"),
        (["--set", "loss=sigmoid", "teacher=x"], "`loss` must be 'softmax' with a `teacher`"),
        (["--set", "class_weights=rare"], "`class_weights` must be one of 'balanced'"),
        (["--set", "best=accuracy"], "`best` must be one of 'val_accuracy', 'val_loss'"),
        (["--set", "patience=0"], "`patience` must be a positive integer"),
        (["--set", "layer_decay=0"], "`layer_decay` must be a number in (0, 1]. Received: layer"),
        (["--set", "layer_decay=2"], "`layer_decay` must be a number in (0, 1]"),
        (["--set", "distillation_temperature=200"], "must be a number in (0, 100]"),
        (["--set", "channels=true", "input_size=40"], "`channels` must be one of 1, 3"),
        (["--set", "channels=1"], "`input_size` must be given with channels=1"),
        (["--set", "freeze_stages=1.0"], "`freeze_stages` must be an integer from 0"),
        (["--set", "freeze_stages=1", "lora_rank=2"], "`freeze_stages` must be None with a `lora"),
        (["--set", "drop_path_rate=1"], "`drop_path_rate` must be a number in [0, 1)"),
        (
            ["--recipe", "cifar"],
            "the path of a Python file. Received: --recipe cifar",
        ),
    ],
)
def test_wrong_arguments_end_in_one_message(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "warmup"),
    [
        ([], 5),
        (["--epochs", "20"], 5),
        (["--epochs", "5"], 2.5),
        (["--epochs", "1"], 0.5),
        (["--epochs", "8", "--set", "warmup_epochs=1"], 1),
    ],
)
def test_the_warmup_fits_fewer_epochs(arguments, warmup):
    assert parse(*arguments).warmup_epochs == warmup


def test_a_long_recipe_keeps_its_warmup_up_to_a_tenth_of_the_epochs():
    recipe = {"transfer": dataclasses.replace(RECIPE, epochs=1000)}
    for epochs, warmup in (("100", 5), ("30", 3), ("3", 0.3)):
        arguments = ["--recipe", "transfer", "--epochs", epochs]
        assert parse_config(recipe, arguments)[0].warmup_epochs == pytest.approx(warmup)


def test_saved_values_make_the_same_configuration(tmp_path):
    RECIPE.save(tmp_path / "config.json")
    values = json.loads((tmp_path / "config.json").read_text())
    assert TrainConfig(**values) == RECIPE


def test_config_json_has_the_names_of_every_earlier_run(tmp_path):
    RECIPE.save(tmp_path / "config.json")
    assert sorted(json.loads((tmp_path / "config.json").read_text())) == NAMES.split()


def test_it_is_an_input_config():
    assert isinstance(RECIPE, InputConfig)
    assert InputConfig(batch_size=32).epochs == 1
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'epochs'"):
        TrainConfig(model="m", dataset="d", output_dir="o", batch_size=4, learning_rate=1e-3)


def test_paths_are_saved_as_text(tmp_path):
    config = dataclasses.replace(RECIPE, output_dir=tmp_path / "run", data_dir=tmp_path)
    config.save(tmp_path / "config.json")
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["output_dir"], saved["data_dir"]) == (str(tmp_path / "run"), str(tmp_path))


def test_numbers_of_numpy_are_saved_as_those_of_python(tmp_path):
    values = {
        "batch_size": np.int64(16),
        "drop_path_rate": np.float32(0.25),
        "crop_ratio": np.float32(0.5),
        "learning_rate": np.logspace(-4, -2, 3)[1],
        "crop_area": (np.float32(0.5), np.float64(1.0)),
        "horizontal_flip": np.bool_(False),
    }
    config = dataclasses.replace(RECIPE, **values)
    config.save(tmp_path / "config.json")
    found = json.loads((tmp_path / "config.json").read_text())
    assert {name: found[name] for name in values} == {
        "batch_size": 16,
        "drop_path_rate": 0.25,
        "crop_ratio": 0.5,
        "learning_rate": pytest.approx(0.001),
        "crop_area": [0.5, 1.0],
        "horizontal_flip": False,
    }
    assert TrainConfig(**found) == config


def test_a_split_may_be_called_by_a_number():
    config = parse("--set", "train_split=2024", "validation_split=2025")
    assert (config.train_split, config.validation_split) == ("2024", 2025)


def test_the_output_may_be_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse("--set", "output_dir=~/run").output_dir == str(tmp_path / "run")


def test_learning_rate_follows_the_batch():
    config = parse("--set", "learning_rate_batch_size=16", "final_learning_rate=1e-5")
    assert config.scaled_learning_rates == pytest.approx((2e-3, 2e-5))
    assert RECIPE.scaled_learning_rates == (1e-3, 0.0)


def test_no_resume():
    assert RECIPE.resume
    assert not parse("--no-resume").resume
