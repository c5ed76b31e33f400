"""What a model costs: time and memory on this machine."""

from keras_crossvit.benchmark.speed import measure_inference, measure_training

__all__ = ["measure_inference", "measure_training"]
