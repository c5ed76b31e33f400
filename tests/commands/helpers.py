"""What tests of commands call."""

import keras
import numpy as np
import pytest
import tensorflow as tf

LABELS = ("ant", "bee", "cat", "dog", "eel")  # of the run's model


def refusal(command, *arguments):
    with pytest.raises(SystemExit) as ended:
        command(*arguments)
    message = str(ended.value.code)
    assert "\n" not in message
    return message


def answers(run, split="validation"):
    """Labels by the model's numbers, and probabilities, of a split."""
    model = keras.saving.load_model(run / "run" / "model.keras")
    files = sorted((run / "pictures" / split).glob("*/*.png"))
    images = np.stack([tf.io.decode_png(file.read_bytes()) for file in files]).astype("float32")
    labels = np.array([LABELS.index(file.parent.name) for file in files])
    return files, labels, model.predict_on_batch(images)
