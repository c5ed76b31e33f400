"""Files on remote storage: in fsspec's memory, and in a bucket whose requests are counted."""

import types

import fsspec
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_crossvit.data.sources import open_source, storage
from keras_crossvit.data.sources.tfds import _open_split
from keras_crossvit.data.sources.tfrecord import index_shards, read_record
from tests.data_room.bucket import served


@pytest.fixture
def bucket(monkeypatch):
    """A bucket, `gs://bucket`, on a server in this process."""
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # read on import
    gcsfs = pytest.importorskip("gcsfs", reason="gcsfs is not installed")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with served() as bucket:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.address)
        monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
        gcsfs.GCSFileSystem.clear_instance_cache()
        yield bucket
        gcsfs.GCSFileSystem.clear_instance_cache()


@pytest.fixture(params=["memory://storage", "gs://bucket"])
def root(request):
    """Remote storage; the bucket needs gcsfs, the memory nothing."""
    if request.param.startswith("gs:"):
        request.getfixturevalue("bucket")
    return request.param


def test_a_path_with_dots_is_what_the_system_means(tmp_path):
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("far/deep")
    (tmp_path / "table.csv").symlink_to("store")  # its images lie beside the link
    here = tmp_path.resolve()
    for path, meant in [
        ("link/../table.csv", "far/table.csv"),
        ("link/..", "far"),
        ("far/../table.csv", "table.csv"),
        ("link/./x/", "link/x"),
    ]:
        assert storage.expand(f"{here}/{path}") == f"{here}/{meant}"


def image(shade):
    return tf.io.encode_png(np.full((4, 4, 3), shade, "uint8")).numpy()


def shade(file):
    return int(tf.io.decode_png(file)[0, 0, 0])


def records(letter, tmp_path):
    """A TFRecord file of three records, of zero, one and two letters."""
    path = str(tmp_path / "records")
    with tf.io.TFRecordWriter(path) as writer:
        for number in range(3):
            writer.write(letter * number)
    return (tmp_path / "records").read_bytes()


def test_parts_of_a_remote_file(root):
    path = f"{root}/file"
    storage.write(path, b"0123456789")
    assert storage.read(path) == b"0123456789"
    assert storage.read_range(path, 3, 4) == b"3456"
    assert storage.read_range(path, 8, 4) == b"89"
    assert storage.stat(path)[0] == 10
    assert storage.is_file(path)
    assert not storage.is_folder(path)
    assert not storage.is_file(f"{root}/none")
    assert storage.is_folder(root)


def test_a_missing_file(root):
    assert_missing(f"{root}/none")
    assert_missing("/no/such/file")


def assert_missing(path):
    for read in (storage.read, storage.stat, lambda path: storage.read_range(path, 0, 1)):
        with pytest.raises(FileNotFoundError) as error:
            read(path)
        assert (error.value.strerror, error.value.filename) == ("No such file or directory", path)


def test_a_storage_without_its_package():
    with pytest.raises(ImportError, match=r"^lost://bucket/x cannot be read: Protocol not known"):
        storage.read("lost://bucket/x")


def test_records_of_remote_files_and_their_index(root, tmp_path):
    paths = [f"{root}/records/{name}.tfrecord" for name in "ab"]
    for path in paths:
        storage.write(path, records(path[-10].encode(), tmp_path))
    assert read_record(index_shards(paths, [3, 3])[1], 2) == b"bb"
    names = ["a.tfrecord", "b.tfrecord", "keras_crossvit_record_index.npz"]
    assert storage.files_below(f"{root}/records") == names
    assert read_record(index_shards(paths, [3, 3])[0], 1) == b"a"


def test_a_record_of_a_bucket_is_a_request_of_its_bytes(bucket, tmp_path):
    bucket.objects["a.tfrecord"] = records(b"a", tmp_path)
    index_shards(["gs://bucket/a.tfrecord"], [3])
    bucket.forget_requests()
    shards = index_shards(["gs://bucket/a.tfrecord"], [3])
    assert bucket.requests["write"] == 0
    bucket.forget_requests()
    assert read_record(shards[0], 1) == b"a"
    # 16 bytes around the data, and nothing else is requested.
    assert (bucket.requests, bucket.bytes_read) == ({"read": 1}, 17)


def test_index_of_a_bucket_that_cannot_be_written(bucket, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bucket.objects["a.tfrecord"] = records(b"a", tmp_path)
    bucket.writable = False
    index_shards(["gs://bucket/a.tfrecord"], [3])
    assert caplog.messages[0] == "indexing files of gs://bucket: 1, a request per record"
    assert "the index of records is kept in" in caplog.text
    bucket.forget_requests()
    monkeypatch.chdir(tmp_path)  # from any working directory
    caplog.clear()
    assert read_record(index_shards(["gs://bucket/a.tfrecord"], [3])[0], 2) == b"aa"
    assert not caplog.messages
    assert bucket.bytes_read == 18


def test_a_remote_folder(bucket):
    for number in range(40):
        bucket.objects[f"images/train/{'ab'[number % 2]}/{number:02}.png"] = image(number)
    bucket.objects["images/train/a/"] = b""  # as a cloud's console marks a folder
    bucket.objects["images/train/a/notes.txt"] = b"no image"
    bucket.forget_requests()
    source = open_source("folder:gs://bucket/images", validation_split=0.25)
    assert source.class_names == ("a", "b")
    assert (source.train.size, source.validation.size) == (30, 10)
    assert (source.train.remote, source.validation.remote) == (True, True)  # so, all at once
    assert sum(bucket.requests.values()) < 20  # not one for each file
    bucket.forget_requests()
    names, images, labels = open_source(
        "folder:gs://bucket/images", validation_split="train"
    ).train.read([23, 0])
    assert names == [f"gs://bucket/images/train/{end}" for end in ("b/07.png", "a/00.png")]
    assert [*map(shade, images)] == [7, 0]
    assert labels.tolist() == [1, 0]
    assert bucket.bytes_read == sum(map(len, images))


def test_markers_and_hidden_files_of_a_remote_folder(bucket):
    """A cloud's console makes an object for each folder; other programs leave previews."""
    markers = "images/", "images/train/", "images/train/a/", "images/train/a/more/"
    hidden = "images/train/.cache/0.png", "images/train/a/.1.png", "images/train/a/more/._1.png"
    shown = "images/train/a/0.png", "images/train/a/more/1.png"
    bucket.objects.update(dict.fromkeys([*markers, *hidden, *shown], b""))
    assert storage.contents("gs://bucket/images") == (["train"], [])
    assert storage.contents("gs://bucket/images/train") == (["a"], [])
    found = storage.files_below("gs://bucket/images/train/a")
    assert [name for name in found if name.endswith(".png")] == ["0.png", "more/1.png"]


def test_a_remote_image_that_vanished(bucket):
    for name in "ab":
        bucket.objects[f"images/train/{name}/0.png"] = image(9)
    source = open_source("folder:gs://bucket/images", validation_split="train")
    del bucket.objects["images/train/b/0.png"]
    names, images, labels = source.train.read([1, 0])
    assert images[0] == b""
    assert names[0] == "gs://bucket/images/train/b/0.png (No such file or directory)"
    assert shade(images[1]) == 9
    assert labels.tolist() == [0, 0]


def test_a_remote_table(bucket):
    rows = [f"photos/{number}.png,{'ab'[number % 2]}" for number in range(40)]
    bucket.objects["table.csv"] = "\n".join(["path,label", *rows]).encode()
    for number in range(40):
        bucket.objects[f"photos/{number}.png"] = image(number)
    bucket.forget_requests()
    source = open_source("csv:gs://bucket/table.csv", validation_split="train")
    assert sum(bucket.requests.values()) < 10
    assert [*map(shade, source.train.read([31, 4]).images)] == [31, 4]
    assert source.train.remote
    del bucket.objects["photos/31.png"]
    with pytest.raises(ValueError, match=r"row 33, must name an existing file.*'photos/31\.png'"):
        open_source("csv:gs://bucket/table.csv", validation_split="train")


def test_a_local_table_of_remote_images(bucket, tmp_path):
    """They are requested many at a time, too."""
    rows = ["path,label,split"]
    for number, split in enumerate(["train", "test"]):
        bucket.objects[f"photos/{number}.png"] = image(number)
        rows.append(f"gs://bucket/photos/{number}.png,a,{split}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    source = open_source(f"csv:{tmp_path / 'table.csv'}")
    assert source.train.remote
    assert [*map(shade, source.train.read([0]).images)] == [0]


def test_array_records_have_to_be_on_a_disk():
    builder = types.SimpleNamespace(
        data_dir="gs://bucket/mine/1.0.0",
        info=types.SimpleNamespace(file_format=tfds.core.FileFormat.ARRAY_RECORD),
    )
    with pytest.raises(ValueError, match=r"^`data_dir` must be on a disk for a dataset .*gs://bu"):
        _open_split(builder, "mine", "train")
