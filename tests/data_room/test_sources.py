"""TensorFlow datasets and folders as labelled images."""

import dataclasses
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from keras_crossvit.data.sources import open_source, splits


def write(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_png(np.full((4, 6, 3), shade, "uint8")).numpy())


@pytest.fixture
def folder(tmp_path):
    for index, name in enumerate(("ant", "bee")):
        for number in range(3):
            write(tmp_path / "train" / name / f"{number}.png", 100 * index + number)
        write(tmp_path / "val" / name / "deep" / "0.PNG", 200 + index)
    (tmp_path / "train" / "ant" / "notes.txt").write_text("not an image")
    return tmp_path


def contents(split):
    _, images, labels = split.read(range(split.size))
    shades = [int(tf.io.decode_png(image)[0, 0, 0]) for image in images]
    return [*zip(shades, labels.tolist(), strict=True)]


def test_folder(folder):
    source = open_source(f"folder:{folder}")
    assert source.class_names == ("ant", "bee")
    assert (source.train.size, source.validation.size) == (6, 2)
    assert contents(source.train) == [(0, 0), (1, 0), (2, 0), (100, 1), (101, 1), (102, 1)]
    assert contents(source.validation) == [(200, 0), (201, 1)]


def test_suffixes_of_images(folder):
    for suffix in (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp"):
        write(folder / "train" / "ant" / f"x{suffix}", 9)
    assert open_source(f"folder:{folder}").train.size == 6 + 7


def test_a_folder_of_classes_is_one_split(folder):
    """As Keras' loader takes it, with the same held-out images as if it lay in `train`."""
    whole = open_source(
        f"folder:{folder / 'train'}", train_split="train", validation_split="train"
    )
    inner = open_source(f"folder:{folder}")
    assert whole.class_names == inner.class_names
    assert contents(whole.train) == contents(inner.train)
    parts = [
        open_source(f"folder:{path}", validation_split=0.34) for path in (folder, folder / "train")
    ]
    assert [contents(part.validation) for part in parts] == [contents(parts[0].validation)] * 2
    assert [parts[0].train.size, parts[0].validation.size] == [4, 2]
    with pytest.raises(ValueError, match=r": train; .*Received: validation_split='validation'$"):
        open_source(f"folder:{folder / 'train'}")
    (folder / "train" / "aardvark").mkdir()
    with pytest.raises(ValueError, match=r"at least one image .* none in .*aardvark$"):
        open_source(f"folder:{folder / 'train'}", validation_split=0.34)


def test_splits_of_other_names_are_no_classes(folder):
    for name, called in (("train", "Training"), ("val", "Testing")):
        (folder / name).rename(folder / called)
        write(folder / called / "outside of any class.png", 1)
    said = r"must name a split of the dataset .*: Testing, Training; its images belong in"
    with pytest.raises(ValueError, match=said):
        open_source(f"folder:{folder}", validation_split=0.5)


def test_a_class_that_holds_a_folder_is_named(folder):
    """Without `train` around it, it looks like a split."""
    write(folder / "train" / "bee" / "previews" / "0.png", 1)
    said = r"Received: train_split='train'\. In .*/train there are images beside folders in bee, "
    with pytest.raises(ValueError, match=said):
        open_source(f"folder:{folder / 'train'}", validation_split=0.5)
    assert open_source(f"folder:{folder}").train.size == 7


@pytest.mark.parametrize("dataset", ["folder:", "csv:"])
def test_a_path_that_was_forgotten(dataset):
    with pytest.raises(ValueError, match=rf"^`dataset` must have a path .*dataset='{dataset}'$"):
        open_source(dataset)


def test_hidden_files_and_folders_are_left_out(folder):
    """Notebook checkpoints are not a class, and previews are not images to train on."""
    write(folder / "train" / ".ipynb_checkpoints" / "0.png", 1)
    write(folder / "train" / "ant" / ".thumbnails" / "0.png", 2)
    write(folder / "train" / "ant" / "._0.png", 3)
    source = open_source(f"folder:{folder}")
    assert source.class_names == ("ant", "bee")
    assert source.train.size == 6


def test_links_to_folders_are_followed_but_not_in_a_circle(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere / "deep" / "3.png", 3)
    (folder / "train" / "ant" / "linked").symlink_to(elsewhere)
    (elsewhere / "deep" / "back").symlink_to(elsewhere)
    (folder / "train" / "ant" / "up").symlink_to("..")  # its bees are no ants
    (folder / "train" / "ant" / "lost.png").symlink_to(folder / "none.png")  # the log names it
    source = open_source(f"folder:{folder}")
    ants = [os.path.relpath(source.train.name(row), folder) for row in range(5)]
    names = ("0.png", "1.png", "2.png", "linked/deep/3.png", "lost.png")
    assert ants == [f"train/ant/{name}" for name in names]
    assert source.train.size == 8
    (elsewhere / "link").symlink_to(folder / "train")
    assert open_source(f"folder:{elsewhere / 'link'}/../").train.size == 8


@pytest.mark.parametrize(
    ("train", "validation", "count"),
    [("train", "train[:50%]", 719), ("train[:90]", "train[80:]", 10), ("test", "test", 359)],
)
def test_images_that_are_trained_on_and_validated_on(train, validation, count, caplog):
    open_source("digits", train_split=train, validation_split=validation)
    expected = f"digits: {count} images of {validation!r}, to validate on, are also in {train!r}"
    (message,) = caplog.messages
    assert message.startswith(f"{expected}, to train on: ")


def test_splits_that_share_no_image(folder, caplog):
    open_source("digits", train_split="train[:90%]", validation_split="train[90%:]")
    open_source("digits", train_split=None, validation_split="test")  # as for evaluation
    open_source(f"folder:{folder}")
    assert caplog.messages == []
    open_source(f"folder:{folder}", validation_split="train")
    assert "6 images of 'train', to validate on, are also in 'train'" in caplog.messages[-1]


def test_a_pipe_is_no_image(folder):
    """Reading it could block forever."""
    os.mkfifo(folder / "train" / "ant" / "3.png")
    (folder / "train" / "ant" / "4.png").symlink_to(folder / "train" / "ant" / "3.png")
    assert open_source(f"folder:{folder}").train.size == 6


def test_a_folder_that_cannot_be_read_is_an_error(folder, monkeypatch):
    """With a stand-in, since tests may run as a user who can read everything."""
    scan, closed = os.scandir, str(folder / "train" / "bee")

    def refuse(path):
        if path == closed:
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match=f"Permission denied: '{closed}'$"):
        open_source(f"folder:{folder}")


def test_images_that_are_left_out_are_counted(folder, caplog):
    for name in ("ant/3.HEIC", "ant/deep/4.heic", "bee/3.tif", "5.png", "6.heic"):
        write(folder / "train" / name, 1)
    for name in ("ant/Thumbs.db", "ant/.1.tif", "readme.txt"):
        write(folder / "train" / name, 1)
    open_source(f"folder:{folder}")
    expected = "images that are left out: 2 .heic, 1 .tif, 2 outside of any class"
    assert caplog.messages == [f"{folder / 'train'}: {expected}"]


@pytest.mark.parametrize("name", ["valid", "dev"])
def test_splits_to_validate_on_come_before_the_one_to_test_on(folder, caplog, name):
    shutil.copytree(folder / "val", folder / "test")
    (folder / "val").rename(folder / name)
    source = open_source(f"folder:{folder}")
    assert source.validation.name(0).startswith(str(folder / name))
    assert caplog.messages == [f"folder:{folder}: splits that are not read: 'test'"]
    open_source(f"folder:{folder}", train_split=None, validation_split="test")  # as for evaluation
    assert len(caplog.messages) == 1


def test_names_in_two_unicode_forms(folder):
    """A message would show the same name twice."""
    (folder / "train" / "bee").rename(folder / "train" / "caf\u00e9")
    (folder / "val" / "bee").rename(folder / "val" / "cafe\u0301")
    message = "Received also: cafe\u0301 \\(the same letters in another Unicode form"
    with pytest.raises(ValueError, match=message):
        open_source(f"folder:{folder}")
    source = open_source(f"folder:{folder}", validation_split="train")
    with pytest.raises(ValueError, match="with caf\u00e9 \\(the same letters in another Unicode"):
        source.with_classes(("ant", "cafe\u0301"))


def test_a_folder_to_validate_on_may_lack_a_class(folder):
    shutil.rmtree(folder / "val" / "ant")
    source = open_source(f"folder:{folder}")
    assert source.class_names == ("ant", "bee")
    assert contents(source.validation) == [(201, 1)]
    assert source.validation.labels().tolist() == [1]


def test_classes_that_are_not_the_models(tmp_path, caplog):
    """A model's classes are matched by name, or all by order, which the log says."""
    for split in ("train", "validation"):
        for name, count in (("bee", 3), ("cat", 3), ("dog", 3), ("eel", 4)):
            for number in range(count):
                write(tmp_path / split / name / f"{number}.png", number)
    source = open_source(f"folder:{tmp_path}")
    renumbered = source.with_classes(("ant", "bee", "cat", "dog", "eel")).validation
    assert renumbered.labels().tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4]
    assert renumbered.read([12, 0]).labels.tolist() == [4, 1]
    assert not caplog.records
    assert source.with_classes(("1", "2", "3", "4")) is source  # as many, with other names
    (said,) = caplog.messages
    assert said.endswith("which are taken in their order: bee as 1, and so on")
    ids = dataclasses.replace(source, class_names=("n00000001", "n00000002"))
    assert ids.with_classes(("tench", "goldfish")) is ids  # ImageNet's folders, in their order
    assert len(caplog.messages) == 1
    with pytest.raises(ValueError, match=r"`dataset` must have classes of the model.* with cat"):
        source.with_classes(("ant", "bee", "dog", "eel"))
    with pytest.raises(ValueError, match="`dataset` must have classes of the model"):
        source.with_classes(("1", "2"))


def test_a_model_with_two_classes_of_one_name(tmp_path):
    """They are told apart by their numbers, and a name alone is refused."""
    for name in ("bee", "cat"):
        write(tmp_path / "train" / name / "0.png", 1)
        write(tmp_path / "validation" / name / "0.png", 1)
    source = open_source(f"folder:{tmp_path}")
    with pytest.raises(ValueError, match=r"the model, bee \(0\), bee \(2\)\. .* with bee$"):
        source.with_classes(("bee", "cat", "bee"))
    named = dataclasses.replace(source, class_names=("bee (2)", "cat"))
    assert named.with_classes(("bee", "cat", "bee")).validation.labels().tolist() == [2, 1]


def test_digits_are_scikit_learns(tmp_path):
    source = open_source("digits", tmp_path)
    digits = load_digits()
    assert source.class_names == tuple("0123456789")
    assert (source.train.size, source.validation.size) == (1438, 359)
    names, images, labels = source.validation.read(range(359))
    assert labels.tolist() == digits.target[4::5].tolist()
    assert names[7] == "digits test 7"
    image = tf.io.decode_png(images[7]).numpy()
    np.testing.assert_array_equal(image[..., 0], np.rint(digits.images[39] * 255 / 16))


def test_a_share_of_a_dataset_does_not_depend_on_how_it_is_called(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(splits, "_MANY_LABELS", 1438)
    names = []
    for dataset in ("digits", "digits:1.0.0"):
        share = np.float32(0.2)  # as from an array
        held_out = open_source(dataset, tmp_path, validation_split=share).validation
        names.append([held_out.name(row).removeprefix(dataset) for row in range(held_out.size)])
        wait = f"{dataset}: reading all 1438 images for the labels that are stored with them"
        assert wait in caplog.messages
    assert len(names[0]) == 288
    assert names[0] == names[1]


def remove(path):
    for file in path.rglob("*.*"):
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: remove(root / "train" / "bee"), "at least one image"),
        (
            lambda root: (root / "val").rename(root / "later"),
            "`validation_split` must name a split",
        ),
        (
            lambda root: (root / "train").rename(root / "ant"),
            "its images belong in folders PATH/SPLIT/CLASS, such as PATH/train/cat, or "
            "PATH/CLASS, which make one split, 'train'. Received: tra",
        ),
        (lambda root: write(root / "val" / "cow" / "0.png", 1), "Received also: cow"),
        (lambda root: shutil.rmtree(root / "train" / "bee"), "Received also: bee"),
        (lambda root: remove(root / "val" / "bee"), "or remove the folder. Received: none in "),
        (lambda root: [shutil.rmtree(x) for x in (root / "val").iterdir()], "a folder per class"),
    ],
)
def test_incomplete_folder(folder, spoil, message):
    spoil(folder)
    with pytest.raises(ValueError, match=message):
        open_source(f"folder:{folder}")


def test_a_split_called_by_a_number(folder):
    (folder / "val").rename(folder / "2024")
    source = open_source(f"folder:{folder}", validation_split=2024)  # as JSON reads it
    assert source.validation.name(0).startswith(str(folder / "2024"))
    alone = open_source(f"folder:{folder}", train_split=2024, validation_split=2024)
    assert alone.train.size == alone.validation.size == source.validation.size


@pytest.mark.parametrize("kind", ["folder", "csv"])
@pytest.mark.parametrize(
    "splits",
    [
        {"train_split": "train[:50%]"},
        {"validation_split": "train[50%:]"},
        {"train_split": 2023},
        {"train_split": None, "validation_split": 0.2},
    ],
)
def test_splits_that_are_not_there(folder, kind, splits):
    dataset = f"folder:{folder}"
    if kind == "csv":
        (folder / "table.csv").write_text("path,label\ntrain/ant/0.png,ant\n")
        dataset = f"csv:{folder / 'table.csv'}"
    argument = next(iter(splits))
    with pytest.raises(ValueError, match=f"`{argument}` must name a split of the dataset"):
        open_source(dataset, **{"validation_split": "train", **splits})


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="`dataset` must name an existing folder"):
        open_source(f"folder:{tmp_path / 'nowhere'}")


def test_unknown_dataset(tmp_path):
    with pytest.raises(ValueError, match="`dataset` must be the name of a TensorFlow dataset"):
        open_source("no_such_dataset_anywhere", pathlib.Path(tmp_path))


@pytest.mark.parametrize(
    ("dataset", "meant"),
    [
        ("../images", "folder:../images"),
        ("./images", "folder:./images"),
        ("~/images", "folder:~/images"),
        ("/some/folder", "folder:/some/folder"),
        ("some/deep/folder", "folder:some/deep/folder"),
        ("gs://bucket/images", "folder:gs://bucket/images"),
        ("my pets", "folder:my pets"),  # it exists
        ("pets", "folder:pets"),  # it exists, and could be the name of a dataset
        ("table.csv", "csv:table.csv"),
        ("/some/Table.CSV", "csv:/some/Table.CSV"),
        ("foldr:../images", "folder:../images"),
        ("cvs:table.csv", "csv:table.csv"),
        (pathlib.Path("/some/folder"), "folder:/some/folder"),
    ],
)
def test_path_without_its_prefix(dataset, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("pets", "my pets"):
        (tmp_path / name).mkdir()
    (tmp_path / "table.csv").write_text("path,label\n")
    with pytest.raises(ValueError, match="`dataset` must be the name of") as error:
        open_source(dataset, tmp_path / "data")
    message = str(error.value)
    assert message.endswith(f"Received: dataset={dataset!r}. Did you mean {meant!r}?")
    assert '"folder:..." or "csv:..."' in message
    assert "\n" not in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my pets", "pets", "table.csv"]


@pytest.mark.parametrize("dataset", ["", "no-such-name", "notes.txt", None])
def test_name_that_is_no_path(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("a file, and no table")
    with pytest.raises(ValueError, match=rf"Received: dataset={dataset!r}$"):
        open_source(dataset)


def test_folder_of_the_same_name_does_not_hide_a_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert open_source("digits", tmp_path / "data").train.size == 1438


def test_parts_of_splits_and_other_folders(tmp_path, folder):
    source = open_source("digits", tmp_path / "data", "train[:20]", "train[20:26]")
    assert (source.train.size, source.validation.size) == (20, 6)
    targets = load_digits().target
    training = [label for row, label in enumerate(targets) if row % 5 != 4]
    assert source.validation.read(range(6)).labels.tolist() == training[20:26]
    for whole in ("train+test", "all", "train[:50%] + train[50%:]+test"):
        source = open_source("digits", tmp_path / "data", whole, "test")
        assert (source.train.size, source.validation.size) == (1797, 359)
    with pytest.raises(ValueError, match=r"`train_split` must .* or a sum, as in .*train\+tset"):
        open_source("digits", tmp_path / "data", "train+tset", "test")
    source = open_source(f"folder:{folder}", validation_split="train")
    assert contents(source.validation) == contents(source.train)


def test_a_digest_tells_other_names_and_not_another_folder(folder, tmp_path_factory):
    source = open_source(f"folder:{folder}")
    moved = tmp_path_factory.mktemp("elsewhere") / "moved"
    shutil.copytree(folder, moved)
    before = [source.train.digest(), source.validation.digest()]
    there = open_source(f"folder:{moved}")
    assert [there.train.digest(), there.validation.digest()] == before
    image = next((moved / "train").rglob("*.png"))
    image.rename(image.with_name("another.png"))
    assert open_source(f"folder:{moved}").train.digest() != before[0]
