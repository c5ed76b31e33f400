"""AdamW and SGD as used to train vision transformers, on every backend."""

from keras_crossvit.optimizer.adamw import AdamW
from keras_crossvit.optimizer.make import check_values, make_optimizer
from keras_crossvit.optimizer.rates import learning_rate_scales, learning_rate_schedule
from keras_crossvit.optimizer.replicas import sum_over_replicas
from keras_crossvit.optimizer.sgd import SGD

__all__ = [
    "SGD",
    "AdamW",
    "check_values",
    "learning_rate_scales",
    "learning_rate_schedule",
    "make_optimizer",
    "sum_over_replicas",
]
