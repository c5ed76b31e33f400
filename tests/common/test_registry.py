"""The one kind of registry."""

import pytest

from keras_crossvit.common.registry import Registry


@pytest.fixture
def registry():
    registry = Registry("fruit")
    registry.register("pear")(1)
    registry.register("apple")(2)
    return registry


def test_it_is_a_mapping_in_the_order_of_registration(registry):
    assert dict(registry) == {"pear": 1, "apple": 2}
    assert list(registry) == ["pear", "apple"]


def test_the_decorator_returns_what_it_enters(registry):
    @registry.register("fig")
    def fig():
        return 3

    assert registry["fig"] is fig
    assert fig() == 3


def test_a_name_stays_with_its_object(registry):
    registry.register("pear")(1)  # the same again
    with pytest.raises(ValueError, match="`name` must be new, but there is a fruit of that name"):
        registry.register("pear")(5)
    assert registry["pear"] == 1


def test_a_definition_that_is_run_again_replaces_itself(registry):
    def define(value):
        def fig():
            return value

        return registry.register("fig")(fig)

    define(1)
    assert define(2) is registry["fig"]
    assert registry["fig"]() == 2


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_name_is_a_string(registry, name):
    with pytest.raises(ValueError, match="`name` of a fruit must be a non-empty string"):
        registry.register(name)


def test_an_unknown_name_gets_the_allowed_ones_and_the_nearest(registry):
    assert registry.check("dessert", "apple") == "apple"
    message = r"`dessert` must be one of 'apple', 'pear'\. Received: dessert='aple'\. Did you mean"
    with pytest.raises(ValueError, match=message + r" 'apple'\?$"):
        registry.check("dessert", "aple")
    with pytest.raises(ValueError, match=r"Received: dessert=\['apple'\]$"):
        registry.check("dessert", ["apple"])
