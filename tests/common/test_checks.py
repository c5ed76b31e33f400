"""Checks of arguments: what passes, and what the message says of what does not."""

import re

import pytest

from keras_crossvit.common.checks import check_choice


@pytest.mark.parametrize("value", ["avg", "max"])
def test_a_choice_is_returned(value):
    assert check_choice("pooling", value, {"avg", "max"}) == value


@pytest.mark.parametrize(
    ("value", "choices", "message"),
    [
        ("tokn", {"token", "avg"}, "'avg', 'token'. Received: x='tokn'. Did you mean 'token'?"),
        ("AVG", {"token", "avg"}, "'avg', 'token'. Received: x='AVG'"),
        (["avg"], {"token", "avg"}, "'avg', 'token'. Received: x=['avg']"),
        (3, {1, 2}, "1, 2. Received: x=3"),
        ("True", {True, False}, "False, True. Received: x='True'"),
    ],
)
def test_another_value_gets_the_choices_and_the_nearest(value, choices, message):
    with pytest.raises(ValueError, match=f"^`x` must be one of {re.escape(message)}$"):
        check_choice("x", value, choices)
