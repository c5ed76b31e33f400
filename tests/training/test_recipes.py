"""The recipes: the paper's values, and commands that work as written."""

import pathlib
import re
import shlex

import pytest

from keras_crossvit.recipes import RECIPES
from keras_crossvit.training import parse_config

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "keras_crossvit" / "recipes").glob("*.py")),
]


@pytest.fixture
def recipes():
    return RECIPES


def commands():
    """Every `python recipes/train.py ...` of the documentation, with its page."""
    found = []
    for page in PAGES:
        text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
        for line in re.findall(r"python recipes/train\.py (--recipe [^\n`]+)", text):
            found.append(pytest.param(line.replace("[", "").split(" ...")[0], id=page.name))
    return found


@pytest.mark.parametrize("command", commands())
def test_commands_of_the_documentation_are_understood(command, recipes):
    arguments = [text.strip("`[]:.'") for text in shlex.split(command)]
    # The file of docs/extend.md, which tests/test_readme.py runs.
    known = {**recipes, "swap_means_recipe.py": recipes["imagenet"]}
    config, only_check = parse_config(known, arguments)
    assert not only_check
    assert config.output_dir.startswith(("runs/", "$SHARED/runs/"))


def test_imagenet_is_table_9(recipes):
    config = recipes["imagenet"]
    assert (config.epochs, config.warmup_epochs, config.batch_size) == (300, 30, 4096)
    assert config.scaled_learning_rates == pytest.approx((0.004, 0.00001))
    assert (config.optimizer, config.weight_decay) == ("adamw", 0.05)
    assert (config.label_smoothing, config.drop_path_rate) == (0.1, 0.1)
    assert config.augment == "reference"
    assert (config.randaugment_magnitude, config.randaugment_num_ops) == (9, 2)
    assert (config.mixup_alpha, config.cutmix_alpha) == (0.8, 1.0)
    assert config.erasing_probability == 0.25
    assert config.crop_area == (0.08, 1.0)
    assert config.horizontal_flip
    # A smaller batch, a smaller rate.
    smaller, _ = parse_config(recipes, ["--recipe", "imagenet", "--batch-size", "512"])
    assert smaller.scaled_learning_rates == pytest.approx((0.0005, 0.00000125))


def test_highres_starts_from_the_weights_at_240(recipes):
    config = recipes["highres"]
    assert (config.epochs, config.input_size, config.weights) == (30, 408, "imagenet")


def test_transfer_is_table_9(recipes):
    config = recipes["transfer"]
    assert (config.optimizer, config.learning_rate, config.batch_size) == ("sgd", 0.01, 768)
    assert (config.weight_decay, config.epochs, config.warmup_epochs) == (1e-4, 1000, 5)
    assert (config.weights, config.augment) == ("imagenet", "reference")
