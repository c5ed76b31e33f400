"""A table of image files: `csv:FILE`, with the columns `path`, `label` or `labels`, and `split`.

    path,label,split                    path,labels
    photos/1.jpg,ant,train              photos/1.jpg,ant
    photos/2.jpg,bee,validation         photos/2.jpg,ant|bee

Paths are relative to the table. With `labels`, an image has one or more labels, separated by `|`,
and the task is multi-label. Without `split`, all rows belong to the split "train".
"""

import array
import csv
import io
import os
from collections.abc import Collection
from typing import Any

import numpy as np

from keras_crossvit.data.sources import storage
from keras_crossvit.data.sources.base import SOURCES, Request, Source, unicode_hint
from keras_crossvit.data.sources.compact import Strings
from keras_crossvit.data.sources.folder import FileSplit

_SEPARATOR = "|"
_COLUMNS = ({"path", "label"}, {"path", "labels"})


class MultiLabelSplit(FileSplit):
    """Image files with any number of labels each.

    Args:
        root: As in `FileSplit`.
        paths: As in `FileSplit`.
        labels: All labels of all images, one image after the other, int `(M,)`.
        counts: How many of them each image has, int `(N,)`.
        classes: Number of classes.
    """

    def __init__(self, root: str, paths: Strings, labels: Any, counts: Any, classes: int) -> None:
        super().__init__(root, paths, labels)
        self.label_shape = (classes,)
        self._ends = np.cumsum(counts)
        self._counts = counts

    def load(self, index: int) -> tuple[bytes, object]:
        labels = np.zeros(self.label_shape, "float32")
        end = self._ends[index]
        labels[self._labels[end - self._counts[index] : end]] = 1
        return storage.read(self.name(index)), labels

    def labels(self) -> np.ndarray:
        labels = np.zeros((self.size, *self.label_shape), "float32")
        labels[np.repeat(np.arange(self.size), self._counts), self._labels] = 1
        return labels


@SOURCES.register("csv")
def open_csv(request: Request) -> Source:
    """Opens `csv:FILE`; the classes are the labels of the rows to train on, sorted."""
    path = storage.expand(request.location)
    if not storage.is_file(path):
        raise FileNotFoundError(
            f"`dataset` must name an existing table. Received: dataset={request.dataset!r}"
        )
    table = _Table(path)
    splits = request.choose_splits(table.rows)
    class_names = table.class_names(splits[0])
    table.check_repeats([*dict.fromkeys(name for name in splits if name is not None)])
    counts = {name: f"{name!r} of {len(rows.paths)} rows" for name, rows in table.rows.items()}
    request.log_unread(counts, splits)

    def open_split(name):
        return table.open_split(name, class_names)

    return request.source(class_names, splits, open_split)


class _Rows:
    """The rows of one split: paths, label numbers, and each row's line in the table.

    Hashes tell which rows name the same image, and which have the same labels.
    """

    def __init__(self) -> None:
        self.paths = Strings()
        self.labels, self.counts, self.lines = (array.array("i") for _ in range(3))
        self.images, self.label_sets = array.array("q"), array.array("q")


class _Table:
    """A table that was read and checked, without the labels' final numbers."""

    def __init__(self, path: str) -> None:
        self._path, self._root = path, os.path.dirname(path)
        self._numbers: dict[str, int] = {}  # of each label, in order of first occurrence
        self.rows: dict[str, Any] = {}
        try:
            text = storage.read(path).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} must be a table in UTF-8. Received: {error}") from error
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows = self._rows_of(reader)
        header = [name.strip() for name in next(rows, [])]
        if len(header) != len(set(header)) or set(header) - {"split"} not in _COLUMNS:
            raise ValueError(
                f"{path}, row 1, must name the columns path, label or labels, and possibly "
                f"split. Received: {','.join(header)}"
            )
        self.multi_label = "labels" in header
        for fields in rows:
            if any(map(str.strip, fields)):  # spreadsheets end a table with rows of separators
                self._add(reader.line_num, header, fields)
        if not self.rows:
            raise ValueError(f"{path} must have a row per image. Received: none")
        for rows in self.rows.values():
            missing = storage.first_missing(self._root, rows.paths)
            if missing is not None:
                name = rows.paths[missing]
                self._refuse(rows.lines[missing], "must name an existing file", name)

    def _rows_of(self, reader):
        try:
            yield from reader
        except csv.Error as error:
            self._refuse(reader.line_num, "must be readable", str(error))

    def _add(self, line, header, fields):
        row = dict(zip(header, fields, strict=False))
        split = row.get("split", "train").strip()
        label = row.get("labels", row.get("label", ""))
        labels = dict.fromkeys(label.split(_SEPARATOR)) if self.multi_label else [label]
        faults = {
            f"{len(header)} fields": len(fields) == len(header),
            "a path": row["path"],
            "a label": all(text.strip() for text in labels),
            "a split": split,
        }
        for needed, there in faults.items():
            if not there:
                self._refuse(line, f"must have {needed}", ",".join(fields))
        rows = self.rows.setdefault(split, _Rows())
        rows.paths.append(row["path"])
        numbers = [self._numbers.setdefault(text.strip(), len(self._numbers)) for text in labels]
        rows.labels.extend(numbers)
        rows.counts.append(len(numbers))
        rows.images.append(hash(self._whole_path(row["path"])))
        rows.label_sets.append(hash(frozenset(numbers)))
        rows.lines.append(line)

    def _whole_path(self, path):
        """The same for all spellings of a path; names in a bucket have only one."""
        whole = storage.join(self._root, path)
        return whole if storage.is_remote(whole) else os.path.abspath(whole)

    def _refuse(self, line, message, received):
        raise ValueError(f"{self._path}, row {line}, {message}. Received: {received!r}")

    def check_repeats(self, splits: Collection[str]) -> None:
        """Refuses an image with rows in two of the splits, or with rows of different labels."""
        parts = [self.rows[name] for name in splits]
        images, labels, lines = (
            np.concatenate([getattr(rows, column) for rows in parts])
            for column in ("images", "label_sets", "lines")
        )
        split = np.repeat(np.arange(len(parts)), [len(rows.paths) for rows in parts])
        _, first, inverse = np.unique(images, return_index=True, return_inverse=True)
        first = first[inverse]  # the first row of each row's image
        faults = {
            "must not name an image that row {} has in another split": split != split[first],
            "must have the label of row {}, which names the same image (several labels stand in "
            "one row of a column `labels`, as in cat|dog)": labels != labels[first],
        }
        for message, wrong in faults.items():
            if wrong.any():
                row = np.argmax(wrong)
                path = parts[split[row]].paths[row - np.searchsorted(split, split[row])]
                self._refuse(lines[row], message.format(lines[first[row]]), path)

    def class_names(self, split):
        """The labels of a split, sorted: by value if all are whole numbers."""
        labels = [*self._numbers]
        names = [labels[number] for number in set(self.rows[split].labels)]
        return sorted(names, key=int if all(name.isdecimal() for name in names) else None)

    def open_split(self, name, class_names):
        rows = self.rows[name]
        final = {text: number for number, text in enumerate(class_names)}
        renumbered = np.array([final.get(text, -1) for text in self._numbers], "int32")
        labels = renumbered[np.frombuffer(rows.labels, "int32")]
        counts = np.frombuffer(rows.counts, "int32")
        if (labels < 0).any():
            row = np.searchsorted(np.cumsum(counts), np.argmax(labels < 0), side="right")
            unknown = [*self._numbers][rows.labels[np.argmax(labels < 0)]]
            hint = unicode_hint([unknown], class_names)
            message = f"must have labels of the split to train on{hint}"
            self._refuse(rows.lines[row], message, unknown)
        # Rows are held out by their names, so those of one image get its first row's.
        _, first, image = np.unique(rows.images, return_index=True, return_inverse=True)
        paths = Strings(rows.paths[row] for row in first[image])
        if self.multi_label:
            return MultiLabelSplit(self._root, paths, labels, counts, len(class_names))
        return FileSplit(self._root, paths, labels)
