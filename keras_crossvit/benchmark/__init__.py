"""What a model costs: time and memory on this machine, and the paper's tables of cost."""

from keras_crossvit.benchmark.contest import (
    compare_first_step,
    compare_inference,
    compare_training,
)
from keras_crossvit.benchmark.figure import plot_speed
from keras_crossvit.benchmark.named import cost_of, make_model
from keras_crossvit.benchmark.paper import paper_top1
from keras_crossvit.benchmark.speed import measure_inference
from keras_crossvit.benchmark.summary import summarize, to_markdown

__all__ = [
    "compare_first_step",
    "compare_inference",
    "compare_training",
    "cost_of",
    "make_model",
    "measure_inference",
    "paper_top1",
    "plot_speed",
    "summarize",
    "to_markdown",
]
