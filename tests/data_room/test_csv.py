"""Tables of labels, and held-out shares."""

import numpy as np
import pytest
import tensorflow as tf

from keras_crossvit.data import InputConfig, open_source, training_batches
from keras_crossvit.data.sources.held_out import hold_out_rows


@pytest.fixture
def table(tmp_path):
    """Writes a table beside images 0.png to 7.png, with the shades 10 i; returns `csv:FILE`."""
    for number in range(8):
        pixels = np.full((4, 4, 3), 10 * number, "uint8")
        (tmp_path / f"{number}.png").write_bytes(tf.io.encode_png(pixels).numpy())

    def write(*rows):
        (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        return f"csv:{tmp_path / 'labels.csv'}"

    return write


def shades(examples):
    return [int(tf.io.decode_png(image)[0, 0, 0]) // 10 for image in examples.images]


def test_one_label_an_image(table):
    source = open_source(
        table(
            "path,label,split",
            "3.png,dog,train",
            "1.png,cat,train",
            "5.png,dog,validation",
            "2.png,dog,train",
        )
    )
    assert source.class_names == ("cat", "dog")
    assert (source.train.size, source.validation.size) == (3, 1)
    examples = source.train.read([2, 0, 1])
    assert shades(examples) == [2, 3, 1]
    np.testing.assert_array_equal(examples.labels, [1, 1, 0])
    np.testing.assert_array_equal(source.validation.read([0]).labels, [1])


def test_several_labels_an_image_become_rows_of_zeros_and_ones(table):
    path = table("path,labels", *(f"{i}.png,{'red' if i % 2 else 'red|blue'}" for i in range(8)))
    source = open_source(path, validation_split=0.25)
    assert source.class_names == ("blue", "red")
    rows = source.train.read(range(source.train.size))
    expected = [[0, 1] if shade % 2 else [1, 1] for shade in shades(rows)]
    np.testing.assert_array_equal(rows.labels, expected)
    config = InputConfig(batch_size=6, augment="none", label_smoothing=0.1)
    _, labels = next(iter(training_batches(source.train, 2, (4, 4), config)))
    assert set(labels.numpy().ravel()) == {0.0, 1.0}  # smoothing is for one label an image
    np.testing.assert_array_equal(labels[:, 1], np.ones(6))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["file,label", "0.png,a"], "row 1, must name the columns path, label or labels"),
        (["path,label,colour", "0.png,a,b"], "row 1, must name the columns .*path,label,colour"),
        (["path", "0.png"], "row 1, must name the columns"),
        (["path,label,label", "0.png,a,b"], "row 1, must name the columns"),
        (["path,label", "0.png,a", '"1.png,b'], "row 3, must be readable"),
        (["path,label,split", "0.png,a,"], "row 2, must have a split"),
        (["path,label", "0.png,a", "9.png,b"], r"row 3, must name an existing file.*'9\.png'"),
        (["path,label", "0.png,"], "row 2, must have a label"),
        (["path,label", ",a"], "row 2, must have a path"),
        (["path,labels", "0.png,a|"], "row 2, must have a label"),
        (["path,label", "0.png,a,b"], "row 2, must have 2 fields"),
        (["path,label"], "must have a row per image"),
        (["path,label", ",", " , "], "must have a row per image"),
        (
            ["path,label", "0.png,a", "1.png,a", "./0.png,b"],
            r"row 4, must have the label of row 2, .* column `labels`, as in .*'\./0\.png'$",
        ),
        (["path,labels", "0.png,a|b", "0.png,a"], "row 3, must have the label of row 2"),
    ],
)
def test_a_wrong_row_is_named(table, rows, message):
    with pytest.raises(ValueError, match=message):
        open_source(table(*rows), validation_split=0.5)


def test_spaces_around_a_split_and_rows_of_others(table, caplog):
    """A split that nothing reads is not dropped silently."""
    rows = "0.png,a,train", "1.png,b,train ", "2.png,a,val", "3.png,b,Train"
    source = open_source(table("path,label,split", *rows))
    assert (source.train.size, source.validation.size) == (2, 1)
    (said,) = caplog.messages
    assert said.endswith("labels.csv: splits that are not read: 'Train' of 1 rows")
    caplog.clear()
    rows = "0.png,a,train", "1.png,a,train", "2.png,a,test"
    open_source(table("path,label,split", *rows), validation_split=0.5)
    (said,) = caplog.messages
    assert said.endswith("splits that are not read: 'test' of 1 rows")
    open_source(table("path,label,split", *rows), train_split=None)  # as for evaluation
    assert len(caplog.messages) == 1


def test_an_image_in_two_splits(table):
    """A model would be validated on what it was trained on; unread splits may repeat images."""
    path = table("path,label,split", "0.png,a,train", "1.png,a,val", "0.png,a,val", "0.png,a,all")
    with pytest.raises(ValueError, match="row 4, must not name an image that row 2 has in"):
        open_source(path)
    assert open_source(path, validation_split="train").validation.size == 1
    assert open_source(path, train_split=None).validation.size == 2


def test_an_image_of_several_rows_is_trained_on_or_validated_on(table):
    """Rows may be repeated, so that they count for more."""
    for share in (0.2, 0.3, 0.4, 0.5):
        rows = [f"{number % 8}.png,{'ab'[number % 2]}" for number in range(24)]
        source = open_source(table("path,label", *rows), validation_split=share)
        parts = [
            set(shades(part.read(range(part.size)))) for part in (source.train, source.validation)
        ]
        assert all(parts)
        assert not parts[0] & parts[1]
        assert source.train.size + source.validation.size == 24
    same = table("path,label", *["0.png,a"] * 4)
    with pytest.raises(ValueError, match="must be a share that holds out at least one image"):
        open_source(same, validation_split=0.5)


def test_an_image_is_one_however_its_path_is_spelt(table, tmp_path, monkeypatch):
    whole, around = str(tmp_path / "0.png"), f"../{tmp_path.name}/0.png"
    monkeypatch.chdir(tmp_path)
    for path in (whole, "./0.png", around):
        table("path,label,split", "0.png,a,train", "1.png,b,train", f"{path},a,val")
        with pytest.raises(ValueError, match="row 4, must not name an image that row 2 has in"):
            open_source("csv:labels.csv")
        table("path,label", "0.png,a", "1.png,b", f"{path},b")
        with pytest.raises(ValueError, match="row 4, must have the label of row 2"):
            open_source("csv:labels.csv", validation_split=0.5)
    rows = [
        f"{start}{number}.png,a" for number in range(8) for start in ("", f"{tmp_path}/", "./")
    ]
    table("path,label", *rows)
    for share in (0.2, 0.3, 0.4, 0.5):
        source = open_source("csv:labels.csv", validation_split=share)
        parts = [shades(part.read(range(part.size))) for part in (source.train, source.validation)]
        assert sorted(parts[0] + parts[1]) == sorted([*range(8)] * 3)
        assert parts[1]
        assert not {*parts[0]} & {*parts[1]}


def test_rows_of_separators_alone_are_blank(table):
    """Spreadsheets end tables with them."""
    path = table("path,label", "0.png,a", ",", "1.png,a", ",", ",,")
    source = open_source(path, validation_split=0.5)
    assert (source.train.size, source.validation.size) == (1, 1)


def test_several_labels_have_no_order(table):
    path = table("path,labels", "0.png,a|b", "0.png,b|a")
    assert open_source(path, validation_split="train").train.labels().tolist() == [[1, 1]] * 2


def test_a_label_that_the_split_to_train_on_lacks(table):
    rows = "0.png,a|b,train", "1.png,b|a,val", "2.png,c|a,val"
    with pytest.raises(ValueError, match=r"row 4, must have labels of the split .*Received: 'c'"):
        open_source(table("path,labels,split", *rows))


def test_labels_in_two_unicode_forms(table):
    rows = "0.png,caf\u00e9,train", "1.png,cafe\u0301,val"
    with pytest.raises(ValueError, match=r"row 3, .* \(the same letters in another Unicode form"):
        open_source(table("path,label,split", *rows))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [(("10", "9", "2"), ("2", "9", "10")), (("10", "9", "x"), ("10", "9", "x"))],
)
def test_classes_are_in_the_order_of_their_numbers_or_names(table, labels, classes):
    rows = [f"{number}.png,{label}" for number, label in enumerate(labels)]
    source = open_source(table("path,label", *rows), validation_split="train")
    assert source.class_names == classes
    found = [classes[number] for number in source.train.read(range(3)).labels]
    assert found == [*labels]


def test_spaces_around_names_and_labels(table):
    path = table("path , label", "0.png, ant", "1.png,ant ", "2.png,bee")
    source = open_source(path, validation_split="train")
    assert source.class_names == ("ant", "bee")
    assert source.train.labels().tolist() == [0, 0, 1]


def test_a_table_is_utf_8_with_or_without_the_mark_of_spreadsheets(table, tmp_path):
    rows = "path,label\n0.png,caf\u00e9\n1.png,bee\n"
    path = table(rows)
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "labels.csv").write_text(rows, encoding=encoding)
        assert open_source(path, validation_split="train").class_names == ("bee", "caf\u00e9")
    (tmp_path / "labels.csv").write_text(rows, encoding="latin-1")
    with pytest.raises(ValueError, match=r"labels\.csv must be a table in UTF-8\. Received: "):
        open_source(path, validation_split="train")


def test_no_such_table(tmp_path):
    with pytest.raises(FileNotFoundError, match="must name an existing table"):
        open_source(f"csv:{tmp_path / 'none.csv'}")


def test_a_share_is_held_out_of_each_class_and_always_the_same():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    names = [f"/data/{label}/{number}.png" for number, label in enumerate(labels)]
    train, held_out = hold_out_rows(names, labels, 0.2)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(100))
    np.testing.assert_array_equal(np.bincount(labels[held_out]), [10, 6, 4])
    moved = [name.replace("/data/", "other\\").replace("/", "\\") for name in names]
    np.testing.assert_array_equal(hold_out_rows(moved, labels, 0.2)[1], held_out)
    assert not np.array_equal(held_out[:10], np.arange(10))


def test_a_large_share_leaves_one_image_of_each_class():
    labels = np.repeat([0, 1, 2], [10, 1, 9])
    train, held_out = hold_out_rows(map(str, range(20)), labels, 0.9)
    np.testing.assert_array_equal(np.bincount(labels[train]), [1, 1, 1])
    np.testing.assert_array_equal(np.bincount(labels[held_out]), [9, 0, 8])


@pytest.mark.parametrize("where", [0, 50, 100])
def test_an_image_that_is_added_leaves_the_others_where_they_are(where):
    """A model trained further would otherwise be validated on what it was trained on."""
    labels = np.arange(100) % 2
    names = [f"{number}.png" for number in range(100)]
    before = {names[row] for row in hold_out_rows(names, labels, 0.2)[1]}
    names.insert(where, "new.png")
    _, held_out = hold_out_rows(names, np.insert(labels, where, 0), 0.2)
    assert len(before - {names[row] for row in held_out}) <= 2  # one at the end of each class


def test_images_directly_in_a_folder_are_held_out_whatever_its_name():
    labels = np.zeros(40, int)
    found = []
    for root in ("", "/data/flat", "/data/other", "C:\\flat"):
        names = [f"{root}/{number}.png".removeprefix("" if root else "/") for number in range(40)]
        found.append(hold_out_rows(names, labels, 0.2, root)[1])
    assert len(found[0]) == 8
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_paths_that_end_alike_are_told_apart_by_their_beginning():
    """The first ones would otherwise be held out, and others once one is added."""
    names = [f"/data/train/ant/sample_{number:04}/rgb/image.png" for number in range(100)]
    labels = np.zeros(100, int)
    _, held_out = hold_out_rows(names, labels, 0.2, "/data/train")
    assert len(held_out) == 20
    assert held_out[-1] > 60
    moved = [name.replace("/data/", "C:\\other\\").replace("/", "\\") for name in names]
    np.testing.assert_array_equal(
        hold_out_rows(moved, labels, 0.2, "C:\\other\\train")[1], held_out
    )
    more = [names[0].replace("0000", "new"), *names]
    _, now = hold_out_rows(more, np.zeros(101, int), 0.2, "/data/train")
    assert len({names[row] for row in held_out} - {more[row] for row in now}) <= 1


def test_paths_that_end_alike_in_two_classes_stay_as_they_are():
    """It matters only within a class: a run that resumes holds out what it held out."""
    labels = np.repeat([0, 1], 50)
    names = [f"/data/{label}/raw/{row % 50}.png" for row, label in enumerate(labels)]
    _, held_out = hold_out_rows(names, labels, 0.2)
    np.testing.assert_array_equal(held_out[:10] + 50, held_out[10:])  # by "raw/0.png" and so on
    names += ["/data/0/new/raw/0.png"]
    _, now = hold_out_rows(names, np.append(labels, 0), 0.2)
    np.testing.assert_array_equal(now[now >= 50][-10:], held_out[10:])


def test_a_share_is_held_out_of_images_with_several_labels():
    """Though nearly every image has its own set of labels; of rare and common ones equally."""
    draws = np.random.default_rng(0).random((2000, 80))
    labels = (draws < np.linspace(0.01, 0.07, 80)).astype("float32")
    train, held_out = hold_out_rows(map(str, range(2000)), labels, 0.2)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(2000))
    assert len(held_out) == 400
    shares = labels[held_out].sum(0) / labels.sum(0)
    assert 0.1 < shares.min() < shares.max() < 0.35
    assert labels[held_out].mean() == pytest.approx(labels.mean(), rel=0.03)


def test_a_folder_without_a_split_to_validate_on_gives_a_share(tmp_path):
    for name, count in (("ant", 10), ("bee", 5)):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(count):
            path = tmp_path / "train" / name / f"{number}.png"
            path.write_bytes(tf.io.encode_png(np.zeros((4, 4, 3), "uint8")).numpy())
    source = open_source(f"folder:{tmp_path}", validation_split=0.2)
    assert (source.train.size, source.validation.size) == (12, 3)
    np.testing.assert_array_equal(np.bincount(source.validation.labels()), [2, 1])
    names = source.train.read(range(12)).names + source.validation.read(range(3)).names
    assert len(set(names)) == 15


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.1, True])
def test_a_share_lies_between_none_and_all(table, share):
    path = table("path,label", "0.png,a", "1.png,a")
    with pytest.raises(ValueError, match="`validation_split` must be the name of a split"):
        open_source(path, validation_split=share)


def test_a_share_is_held_out_of_images_without_a_label_as_of_a_class():
    labels = np.repeat([[0, 0], [1, 0], [1, 1]], 10, axis=0)
    _, held_out = hold_out_rows(map(str, range(30)), labels, 0.5)
    np.testing.assert_array_equal(np.bincount(held_out // 10), [5, 5, 5])
