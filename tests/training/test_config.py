"""A run's values, and the command line that changes them."""

import dataclasses
import json

import pytest

from keras_crossvit.training import TrainConfig, parse_config

RECIPE = TrainConfig("crossvit_digits", "digits", "runs/x", 10, 32, 1e-3)


def parse(*arguments):
    return parse_config({"digits": RECIPE}, ["--recipe", "digits", *arguments])


def test_a_recipe_alone_is_itself():
    assert parse() == RECIPE


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
        (["--strategy", "cloud"], "`strategy` must be one of 'auto', 'mirrored', 'none'"),
        (["--precision", "int3"], "`precision` must be one of"),
        (["--set", "colour=red"], "`--set` must be KEY=VALUE with a key of"),
        (["--set", "warmup_epochs=10"], "`warmup_epochs` must be at least 0 and less than"),
        (["--set", "crop_area=[0.5, 2]"], "`crop_area` must be two shares"),
        (["--set", "drop_path_rate=1"], "`drop_path_rate` must be a number in [0, 1)"),
        (["--recipe", "cifar"], "invalid choice: 'cifar'"),
    ],
)
def test_wrong_arguments_end_in_one_message(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_saved_values_make_the_same_configuration(tmp_path):
    RECIPE.save(tmp_path / "config.json")
    values = json.loads((tmp_path / "config.json").read_text())
    values["crop_area"] = tuple(values["crop_area"])
    assert TrainConfig(**values) == RECIPE
