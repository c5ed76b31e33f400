"""Class names that tell the classes apart."""

import pytest

from keras_crossvit.common.class_names import distinct_names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["ant", "bee"], ("ant", "bee")),
        (["crane", "bee", "crane"], ("crane (0)", "bee", "crane (2)")),
        (["a", "a", "a (1)"], ("a (0)", "a (1) (1)", "a (1) (2)")),
        (
            ["a", "a", "a (1)", "a (1) (2)"],
            ("a (0)", "a (1) (1)", "a (1) (2) (2)", "a (1) (2) (3)"),
        ),
        ([], ()),
    ],
)
def test_names_come_out_distinct(names, expected):
    assert distinct_names(names) == expected
