"""Training: a configuration, and the run that it defines."""

from keras_crossvit.optimizer import make_optimizer
from keras_crossvit.training.cli import main, parse_config
from keras_crossvit.training.config import TrainConfig
from keras_crossvit.training.proof import classify_held_out_picture
from keras_crossvit.training.run import train
from keras_crossvit.training.strategy import make_strategy

__all__ = [
    "TrainConfig",
    "classify_held_out_picture",
    "main",
    "make_optimizer",
    "make_strategy",
    "parse_config",
    "train",
]
