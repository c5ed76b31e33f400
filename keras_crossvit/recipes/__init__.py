"""The recipes by name: one file of values each."""

from keras_crossvit.recipes import digits, highres, imagenet, transfer
from keras_crossvit.training.config import TrainConfig

RECIPES: dict[str, TrainConfig] = {
    "digits": digits.RECIPE,
    "imagenet": imagenet.RECIPE,
    "highres": highres.RECIPE,
    "transfer": transfer.RECIPE,
}
