"""What may change between the parts of a run, and what may not."""

import dataclasses
import json
import re

import numpy as np
import pytest

from keras_crossvit.common.files import as_json
from keras_crossvit.models import CrossViTConfig
from keras_crossvit.training.checkpoints import write_checkpoint
from keras_crossvit.training.resume import check_resumed, last_state
from tests.training.tiny import RECIPE, STEPS, data

CONFIG = dataclasses.replace(RECIPE, epochs=10, warmup_epochs=0, output_dir="run")


@pytest.fixture
def resumed(tmp_path):
    """Resumes a run that has a checkpoint with these notes, and these values in config.json."""

    def resume(notes=(), source=None, before=(), removed=(), **changes):
        write_checkpoint(
            tmp_path / "checkpoints", 5, {"kernel": np.zeros(2)}, {"step": 5, **dict(notes)}
        )
        if before is not None:
            values = {**dataclasses.asdict(CONFIG), **dict(before)}
            values = {name: value for name, value in values.items() if name not in removed}
            (tmp_path / "config.json").write_text(json.dumps(values))
        config = dataclasses.replace(CONFIG, **changes)
        _, noted = last_state(tmp_path, config)
        check_resumed(tmp_path, noted, config, data() if source is None else source)
        return noted

    return resume


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_the_data_may_be_elsewhere(resumed, kind):
    """Moved, or as another process has them; data of another kind are other data."""
    before = {"dataset": f"{kind}:/disk0/pets"}
    assert resumed(before=before, dataset=f"{kind}:/disk1/pets")["step"] == 5
    for other in ("digits", "hub:/disk0/pets"):
        with pytest.raises(ValueError, match=f"dataset='{kind}:/disk0/pets'.*dataset='{other}'"):
            resumed(before=before, dataset=other)


def test_options_younger_than_the_run_count_as_their_defaults(resumed, caplog):
    younger = "layer_decay", "loss"
    with pytest.raises(ValueError, match=r"other values, .*layer_decay=None.* layer_decay=0.5"):
        resumed(removed=younger, layer_decay=0.5)
    assert resumed(removed=younger)["step"] == 5
    assert not caplog.records


def test_a_run_that_records_no_values_takes_the_current_ones(resumed, caplog):
    assert resumed(before=None, layer_decay=0.5)["step"] == 5
    assert "config.json records no values" in caplog.text


def test_a_run_of_version_0_1_is_counted_in_its_batches_and_turned_no_image(resumed, caplog):
    """Its checkpoints have no batch size, and its config.json names no orientation."""
    notes = resumed(before={"batch_size": 8}, removed=["exif_orientation"])
    assert (notes["batch_size"], notes["steps_per_epoch"]) == (8, 22)
    assert "batch_size goes on as 16 instead of 8" in caplog.text
    assert "exif_orientation goes on as True instead of False" in caplog.text


@pytest.mark.parametrize(
    ("names", "difference"),
    [
        (("a", "c", "b"), "whose class 1 is 'c' instead of 'b'"),
        (("a",), "whose class 1 is none instead of 'b'"),
    ],
)
def test_other_classes_are_refused(resumed, names, difference):
    with pytest.raises(ValueError, match=rf"^`dataset` must .* folder:pets, {difference}$"):
        resumed({"class_names": ["a", "b"]}, data(names))


@pytest.mark.parametrize(
    ("step", "epochs", "least"), [(25, 2, 3), (25, 3, None), (22, 1, 2), (22, 2, None)]
)
@pytest.mark.parametrize("recorded", [{"steps_per_epoch": STEPS}, {}])  # {}: by version 0.1
def test_a_run_ends_no_earlier_than_with_the_epoch_that_it_has_begun(
    resumed, step, epochs, least, recorded
):
    notes = {"step": step, "batch_size": 16, **recorded}
    if least is None:
        assert resumed(notes, epochs=epochs)["steps_per_epoch"] == STEPS
        return
    message = rf"^`epochs` must be at least {least}, which the run in run has begun\. .*={epochs}$"
    with pytest.raises(ValueError, match=message):
        resumed(notes, epochs=epochs)


def test_another_design_is_refused_whose_weights_would_fit(resumed):
    design = CrossViTConfig.preset(CONFIG.model)
    noted = dataclasses.asdict(design)
    assert resumed({"design": noted})["design"] == noted
    assert "design" not in resumed()  # of earlier versions
    heads = design.large.num_heads
    noted = {**noted, "fusion": "pairwise"}
    noted["large"] = {**noted["large"], "num_heads": 2 * heads}
    message = (
        "`model` must be of the design that the run began with, "
        f"large.num_heads={2 * heads}, fusion='pairwise'. "
        f"Received: large.num_heads={heads}, fusion='cross_attention'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        resumed({"design": noted})
    with pytest.raises(ValueError, match=r"with, small=None.* Received: .*small\.depth=\d"):
        resumed({"design": {**noted, "small": None}})


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([177, 20], "177 and 20, and their order"),  # as many steps per epoch
        ([176, 21], "176 and 21, and their order"),
        ([176, 20], None),
        (None, None),  # of version 0.1
    ],
)
def test_data_that_grew_or_shrank_are_named(resumed, images, message, caplog):
    resumed({} if images is None else {"images": images})
    if message is None:
        assert not caplog.messages
    else:
        assert caplog.messages[0].startswith("folder:pets has changed: from here on there are 176")
        assert f"held out, instead of {message}" in caplog.messages[0]


def test_other_images_or_labels_of_the_same_number_are_named(resumed, caplog):
    noted = {"images": [176, 20], "data": data().digest}
    resumed(noted)
    assert not caplog.messages
    resumed({**noted, "data": [noted["data"][0], 0]})
    assert "folder:pets has changed: from here on there are other images, in" in caplog.messages[0]


@pytest.mark.parametrize(
    "refused",
    [
        {"notes": {"step": 25}, "epochs": 2},
        {"notes": {"design": {"fusion": "pairwise"}}},
        {"notes": {"class_names": ["c"]}},
        {"layer_decay": 0.5},
    ],
)
def test_a_run_that_is_refused_stays_and_does_not_say_how_it_goes_on(
    resumed, refused, tmp_path, caplog
):
    notes = {"images": [1, 1], **refused.get("notes", {})}
    with pytest.raises(ValueError, match=r"`.*` (must|holds)"):
        resumed(**{"precision": "mixed_bfloat16", **refused, "notes": notes})
    assert not caplog.messages
    assert json.loads((tmp_path / "config.json").read_text()) == as_json(
        dataclasses.asdict(CONFIG)
    )
    resumed({"images": [1, 1]}, precision="mixed_bfloat16")
    assert [message.split(":")[0] for message in caplog.messages] == [
        "precision goes on as 'mixed_bfloat16' instead of 'float32'",
        "folder",
    ]
