"""Records of TFRecord files by number: an index of where they are, built once.

A TFRecord file is a sequence of records, each of which consists of the length of its data (8
bytes, little endian), the checksum of these bytes (4), the data, and the checksum of the data
(4). The checksums are masked CRC-32C. The index is checked against the size and date of each file
when it is opened, and the checksums at every read.
"""

import concurrent.futures
import dataclasses
import hashlib
import io
import logging
import os
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_crossvit.data.sources import storage

_FILE = "keras_crossvit_record_index.npz"
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_EXTRA = _HEADER.size + _FOOTER.size
_FILES_AT_A_TIME = 64  # indexed at the same time

_logger = logging.getLogger("keras_crossvit.data")


@dataclasses.dataclass(frozen=True)
class Shard:
    """Where the records of one TFRecord file are.

    Args:
        path: The file.
        size: Its size in bytes, -1 if it was not there.
        changed: When it was last changed, in nanoseconds.
        offsets: int64 `(N + 1,)`: where each of the N whole records begins, and the last ends.
    """

    path: str
    size: int
    changed: int
    offsets: np.ndarray


def read_record(shard: Shard, number: int) -> bytes:
    """The data of a record.

    Args:
        shard: A `Shard`.
        number: Number of the record, from 0.

    Raises:
        OSError: If it cannot be read: the file is gone, or was changed after it was indexed,
            or the record is not there or is damaged.
    """
    if number >= len(shard.offsets) - 1:
        raise OSError(f"{shard.path} ends before record {number}")
    start, end = (int(offset) for offset in shard.offsets[number : number + 2])
    record = storage.read_range(shard.path, start, end - start)
    data = record[_HEADER.size : -_FOOTER.size]
    if len(record) == end - start and _is_whole(record, data):
        return data
    if storage.stat(shard.path) != (shard.size, shard.changed):
        raise OSError(f"{shard.path} was changed after it was indexed")
    raise OSError(f"a checksum of record {number} of {shard.path} is wrong")


def _is_whole(record, data):
    length, length_checksum = _HEADER.unpack_from(record)
    (checksum,) = _FOOTER.unpack_from(record, len(record) - _FOOTER.size)
    right = masked_crc32c(record[:8]), masked_crc32c(data)
    return length == len(data) and (length_checksum, checksum) == right


def masked_crc32c(data: bytes) -> int:
    """The checksum that TFRecord files use, for any bytes."""
    import google_crc32c  # in the extra `train`, which prediction and export do without

    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def index_shards(paths: Sequence[str], counts: Sequence[int]) -> list[Shard]:
    """Where the records of TFRecord files are, from an earlier index or by scanning the files.

    The index is stored in the files' folder, or, if that cannot be written, in a cache folder,
    which the log then names. A file whose size or date differs from the index is scanned again.
    A file that is missing, or holds fewer records than it should, is named in the log; the
    missing records cannot be read.

    Args:
        paths: The files, all in one folder.
        counts: Number of records that each should hold.

    Returns:
        A `Shard` of each file.

    Raises:
        FileNotFoundError: If none of the files exist.
    """
    folder = os.path.dirname(paths[0])
    places = storage.join(folder, _FILE), _cache_path(folder)
    beside, cached = (_load(place) or {} for place in places)
    known: dict[str, Any] = {**cached, **beside}
    with concurrent.futures.ThreadPoolExecutor(_FILES_AT_A_TIME) as threads:
        stats = [*threads.map(_stat, paths)]
        if all(size < 0 for size, _ in stats):
            raise FileNotFoundError(f"`data_dir` must hold the data. Received: no {paths[0]}")
        now = dict(zip(map(os.path.basename, paths), stats, strict=True))
        for index in (cached, beside):  # where one cannot be written, the other is the newer one
            known |= {n: x for n, x in index.items() if now.get(n) == (x.size, x.changed)}
        indexed = {
            path: dataclasses.replace(known[name], path=path)
            for path, name, stat in zip(paths, map(os.path.basename, paths), stats, strict=True)
            if name in known and (known[name].size, known[name].changed) == stat
        }
        files = zip(paths, stats, strict=True)
        new = [(path, *stat) for path, stat in files if path not in indexed]
        there = sum(size >= 0 for _, size, _ in new)
        if there and storage.is_remote(folder):
            _logger.warning("indexing files of %s: %d, a request per record", folder, there)
        for path, size, _ in new:
            if os.path.basename(path) in known and size >= 0:
                _logger.warning("%s was changed after it was indexed: indexing it again", path)
        scanned = [*threads.map(_scan, new)]
    if any(shard.size >= 0 for shard in scanned):
        there = {os.path.basename(shard.path): shard for shard in scanned if shard.size >= 0}
        _save(places, {**known, **there})
    indexed.update((shard.path, shard) for shard in scanned)
    for path, count in zip(paths, counts, strict=True):
        found = len(indexed[path].offsets) - 1
        if found < count:
            _logger.warning("%s holds %d of its %d records", path, found, count)
    return [indexed[path] for path in paths]


def _stat(path):
    try:
        return storage.stat(path)
    except OSError:
        return -1, 0


def _scan(file):
    """The `Shard` of a path, size and date: goes from record to record, up to a damaged one."""
    path, size, changed = file
    offsets = [0]
    if size >= 0:
        with storage.ranges(path) as read_part:
            while offsets[-1] + _EXTRA <= size:
                header = read_part(offsets[-1], _HEADER.size)
                if len(header) < _HEADER.size:  # the file was cut after its size was read
                    break
                length, checksum = _HEADER.unpack(header)
                end = offsets[-1] + length + _EXTRA
                if checksum != masked_crc32c(header[:8]) or end > size:
                    break
                offsets.append(end)
    return Shard(path, size, changed, np.array(offsets, "int64"))


def _cache_path(folder):
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    place = folder if storage.is_remote(folder) else os.path.abspath(folder)
    digest = hashlib.sha256(place.encode())
    return os.path.join(root, "keras_crossvit", f"{digest.hexdigest()[:16]}-{_FILE}")


def _load(path):
    """`{file name: Shard}` of an index, or `None` if there is none that can be read."""
    try:
        with np.load(io.BytesIO(storage.read(path)), allow_pickle=False) as saved:
            names, ends, offsets = (saved[key] for key in ("names", "ends", "offsets"))
            parts = np.split(offsets, ends[:-1])
            rows = zip(names.tolist(), saved["stats"].tolist(), parts, strict=True)
            return {name: Shard(name, size, changed, part) for name, (size, changed), part in rows}
    except Exception:  # for a damaged file, zipfile, zlib and NumPy raise many types
        return None


def _save(places, shards):
    """Writes an index to the first of the places that can be written."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        names=np.array([*shards]),
        stats=np.array([(shard.size, shard.changed) for shard in shards.values()], "int64"),
        ends=np.cumsum([len(shard.offsets) for shard in shards.values()]),
        offsets=np.concatenate([shard.offsets for shard in shards.values()]),
    )
    beside, cache = places
    try:
        storage.write(beside, buffer.getvalue())
        return
    except OSError as error:
        reason = error.strerror or error
    try:
        os.makedirs(os.path.dirname(cache), exist_ok=True)
        storage.write(cache, buffer.getvalue())
        _logger.warning("the index of records is kept in %s: %s (%s)", cache, beside, reason)
    except OSError as error:
        _logger.warning(
            "the index of records is not kept, since neither %s (%s) nor %s (%s) can be written",
            beside,
            reason,
            cache,
            error.strerror or error,
        )
