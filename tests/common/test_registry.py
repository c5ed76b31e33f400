"""The one kind of registry."""

import keras
import pytest

from keras_crossvit.common.registry import Registry
from keras_crossvit.layers import DropPath


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


def definition(name, module):
    """A class as if defined in a module."""
    return type(name, (keras.layers.Layer,), {"__module__": module, "__qualname__": name})


def test_a_definition_of_the_package_is_replaced_by_itself_alone(registry):
    cell, file = definition("Date", "__main__"), definition("Date", "dates")
    registry.register("date")(cell)
    assert registry.register("date")(file) is registry["date"]  # the cell became a file
    own = definition("Kiwi", "keras_crossvit.fruits")
    registry.register("kiwi")(own)
    with pytest.raises(ValueError, match="`name` must be new among the fruits"):
        registry.register("kiwi")(definition("Kiwi", "dates"))
    assert registry["kiwi"] is own
    again = definition("Kiwi", "keras_crossvit.fruits")
    assert registry.register("kiwi")(again) is registry["kiwi"]


def test_layers_are_registered_with_keras(registry):
    fig = definition("TestsFig", "__main__")
    assert registry.register_layer("fig", keras.layers.Layer)(fig) is registry["fig"] is fig
    assert keras.saving.get_registered_object("keras_crossvit>TestsFig") is fig
    with pytest.raises(
        ValueError, match=r"with a name that is new to Keras, .* Received: DropPath, which is"
    ):
        registry.register_layer("date", keras.layers.Layer)(definition("DropPath", "__main__"))
    assert keras.saving.get_registered_object("keras_crossvit>DropPath") is DropPath
    with pytest.raises(ValueError, match="`name` must be new"):
        registry.register_layer("fig", keras.layers.Layer)(definition("TestsDate", "__main__"))
    assert keras.saving.get_registered_object("keras_crossvit>TestsDate") is None
    assert "date" not in registry


@pytest.mark.parametrize("cls", [keras.Model, keras.layers.Dense(3), "Dense"])
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
