"""`crossvit train`: trains a CrossViT by a recipe."""

from keras_crossvit.recipes import RECIPES
from keras_crossvit.training.cli import main as train_by_recipe


def main() -> None:
    """Trains as the process's arguments say."""
    train_by_recipe(RECIPES)
