"""The one kind of registry: names for what a configuration can choose."""

import collections.abc
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_crossvit.common.checks import check_choice

PACKAGE = "keras_crossvit"  # under which everything of this package is registered with Keras


class NotRegisteredError(ValueError):
    """A configuration names something that nobody has registered."""


class Registry(collections.abc.Mapping):
    """A mapping from names to registered objects, in the order of registration.

    Presets, fusions, patch embeddings and augmentations each have one, filled by the same
    decorator::

        @FUSIONS.register("swap_means")
        class SwapMeans(Fusion): ...

    Args:
        kind: What the names stand for, in error messages: "fusion", "preset", ...
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._entries: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[Any], Any]:
        """A decorator that enters an object under `name` and returns it.

        A function or class that is defined again under its old qualified name, as when a
        notebook cell is run twice or becomes a file, replaces the earlier definition, unless that
        is the package's own; so does an equal object.

        Raises:
            ValueError: If `name` is not a non-empty string, or another object has it.
        """
        if not isinstance(name, str) or not name:
            raise ValueError(f"`name` must be a non-empty string. Received: name={name!r}")

        def enter(entry: Any) -> Any:
            known = self._entries.get(name)
            if known is not None and not _same(known, entry):
                raise ValueError(
                    f"`name` must be new among the {self._kind}s. "
                    f"Received: name={name!r}, which is {known!r}"
                )
            self._entries[name] = entry
            return entry

        return enter

    def register_layer(self, name: str, base: type) -> Callable[[Any], Any]:
        """Like `register`, but for classes of layers, which it also registers with Keras.

        Args:
            name: As in `register`.
            base: The class that they must derive from.

        Raises:
            ValueError: As in `register`; if the class is not derived from `base`; or if another
                class of the same name is registered with Keras.
        """
        enter = self.register(name)

        def enter_both(cls: Any) -> Any:
            if not isinstance(cls, type) or not issubclass(cls, base):
                raise ValueError(
                    f"A {self._kind} must be a class derived from {base.__name__}. "
                    f"Received: {cls!r}"
                )
            known = keras.saving.get_registered_object(f"{PACKAGE}>{cls.__name__}")
            if known is not None and not _same(known, cls):
                raise ValueError(
                    f"A {self._kind} must be a class with a name that is new to Keras, which "
                    f"saves it under that name. Received: {cls.__name__}, which is {known!r}"
                )
            return keras.saving.register_keras_serializable(PACKAGE)(enter(cls))

        return enter_both

    def check(self, argument: str, name: Any) -> str:
        """Returns `name` if something is registered under it.

        Args:
            argument: Name of the argument that holds it, for the message.
            name: What was given.

        Raises:
            NotRegisteredError: If nothing has that name; a similar one is suggested.
        """
        try:
            return check_choice(argument, name, self._entries)
        except ValueError as error:
            raise NotRegisteredError(*error.args) from None

    def __getitem__(self, name: str) -> Any:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _same(known: Any, entry: Any) -> bool:
    """Whether `entry` is the same definition as `known`, made again."""
    if hasattr(known, "__qualname__") and hasattr(entry, "__qualname__"):
        of_package = known.__module__.startswith(f"{PACKAGE}.")
        same_module = known.__module__ == entry.__module__
        return known.__qualname__ == entry.__qualname__ and (same_module or not of_package)
    return known == entry
