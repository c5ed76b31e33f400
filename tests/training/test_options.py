"""A run with what fine-tuning asks for: grey images, a teacher, frozen layers, the best epoch."""

import dataclasses
import types

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit.data.sources import open_source
from keras_crossvit.evaluation import evaluate
from keras_crossvit.training import finish, make_strategy, train
from keras_crossvit.training.assembly import make_step
from keras_crossvit.training.run import Run
from tests.base import pixels
from tests.training.tiny import MODEL, RECIPE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """`(start, result, folder)` of a run of a few seconds."""
    folder = tmp_path_factory.mktemp("options")
    start = kc.CrossViT(MODEL, weights=None, classes=10, input_shape=(40, 40, 1))
    start.save(folder / "start.keras")
    config = dataclasses.replace(
        RECIPE,
        output_dir=str(folder / "run"),
        weights=str(folder / "start.keras"),
        teacher=str(folder / "start.keras"),
        input_size=40,
        channels=1,
        class_weights="balanced",
        layer_decay=0.7,
        freeze_stages=0,
        best="val_accuracy",
        patience=1,
        epochs=4,
    )
    with pytest.MonkeyPatch.context() as patch:  # its graphs take longer to make than the run
        patch.setattr(finish, "export_saved_model", lambda model, folder, **values: folder)
        result = train(config)
    return start, result, folder / "run"


def test_it_ends_an_epoch_after_the_best(done):
    _, result, _ = done
    accuracies = [row["val_accuracy"] for row in result["history"]]
    best = result["best_epoch"]
    assert best == int(np.argmax(accuracies))
    assert result["best_val_accuracy"] == accuracies[best]
    assert len(accuracies) == min(best + 2, 4)


def test_the_best_is_kept_beside_the_last(done):
    _, result, folder = done
    best = keras.saving.load_model(folder / "best.keras")
    source = open_source("digits", train_split="train[:176]", validation_split="test[:50]")
    found = evaluate(best, source.validation, source.class_names, crop_ratio=0.875)
    assert found["top1"] == pytest.approx(result["best_val_accuracy"])


def test_frozen_layers_are_as_before_and_the_rest_is_not(done):
    start, result, _ = done
    for before, after in zip(start.weights, result["model"].weights, strict=True):
        part = after.path.partition("/")[0]
        if part.endswith(("patch_embed", "class_token", "position_embedding")):
            np.testing.assert_array_equal(after, before)
        elif part.endswith("head"):
            assert np.abs(after - before).max() > 1e-5


def test_the_final_model_has_the_size_that_the_weights_gave_the_trained_one():
    trained = kc.CrossViT(MODEL, weights=None, classes=10, input_shape=(48, 48, 3))
    step = types.SimpleNamespace(model=trained)
    source = types.SimpleNamespace(class_names=[*"abcdefghij"])
    run = {"config": RECIPE, "source": source, "step": step, "size": (48, 48, 3)}
    final = Run._final_model(types.SimpleNamespace(**run, crop_ratio=0.75))
    assert final.input_shape == (None, 48, 48, 3)
    assert final.reading == {"crop_ratio": 0.75, "exif_orientation": True}
    for ours, theirs in zip(final.weights, trained.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_folder_describes_the_model(done):
    _, result, folder = done
    again = kc.from_pretrained(folder)
    images = pixels()[..., :1]
    np.testing.assert_allclose(
        again.predict_on_batch(images), result["model"].predict_on_batch(images), atol=1e-6
    )
    assert again.labels == tuple(map(str, range(10)))
    assert again.input_shape == (None, 40, 40, 1)
    assert "| data | digits |" in (folder / "README.md").read_text()


def test_a_run_that_goes_on_needs_the_weights_that_it_began_with_no_longer(tmp_path):
    """Their file may have been moved; they decided the size of the model."""
    weights = str(tmp_path / "gone.keras")
    config = dataclasses.replace(RECIPE, weights=weights, reset_heads=True, lora_rank=2)
    source = open_source("digits", train_split="train[:176]", validation_split="test[:50]")
    strategy = make_strategy("none")
    with pytest.raises(ValueError, match=r"^`weights` must be"):
        make_step(config, source, strategy, {"step": 5})  # of an earlier version
    step = make_step(config, source, strategy, {"step": 5, "input_shape": [40, 48, 1]})
    assert step.model.input_shape == (None, 40, 48, 1)
    sized = dataclasses.replace(config, input_size=40)
    assert make_step(sized, source, strategy, {"step": 5}).model.input_shape == (None, 40, 40, 3)
