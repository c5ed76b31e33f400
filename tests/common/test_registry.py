"""The one kind of registry."""

import types

import keras
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
    with pytest.raises(ValueError, match="`name` must be new among the fruits"):
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


def test_a_definition_of_another_file_does_not_replace_its_namesake(registry):
    def fig():
        return 1

    registry.register("fig")(fig)
    stranger = types.FunctionType(fig.__code__, {})
    stranger.__module__, stranger.__qualname__ = "elsewhere", fig.__qualname__
    with pytest.raises(ValueError, match="`name` must be new among the fruits"):
        registry.register("fig")(stranger)
    assert registry["fig"] is fig


class Fig(keras.layers.Layer):
    pass


def test_layers_are_registered_with_keras(registry):
    assert registry.register_layer("fig", keras.layers.Layer)(Fig) is registry["fig"] is Fig
    assert keras.saving.get_registered_object("keras_crossvit>Fig") is Fig
    stranger = type("Fig", (keras.layers.Layer,), {"__module__": "elsewhere"})
    with pytest.raises(ValueError, match=r"whose own name is new, .* Received: Fig, which is "):
        registry.register_layer("date", keras.layers.Layer)(stranger)
    taken = type("Date", (keras.layers.Layer,), {})
    with pytest.raises(ValueError, match="`name` must be new"):
        registry.register_layer("fig", keras.layers.Layer)(taken)
    assert keras.saving.get_registered_object("keras_crossvit>Date") is None
    assert keras.saving.get_registered_object("keras_crossvit>Fig") is Fig


@pytest.mark.parametrize("cls", [keras.Model, Fig(), "Fig"])
def test_layers_have_their_base(registry, cls):
    with pytest.raises(ValueError, match="A fruit must be a class derived from Dense"):
        registry.register_layer("fig", keras.layers.Dense)(cls)
    assert "fig" not in registry


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_name_is_a_string(registry, name):
    with pytest.raises(ValueError, match="`name` must be a non-empty string"):
        registry.register(name)


def test_an_unknown_name_gets_the_allowed_ones_and_the_nearest(registry):
    assert registry.check("dessert", "apple") == "apple"
    message = r"`dessert` must be one of 'apple', 'pear'\. Received: dessert='aple'\. Did you mean"
    with pytest.raises(ValueError, match=message + r" 'apple'\?$"):
        registry.check("dessert", "aple")
    with pytest.raises(ValueError, match=r"Received: dessert=\['apple'\]$"):
        registry.check("dessert", ["apple"])
