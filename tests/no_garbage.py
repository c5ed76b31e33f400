"""Imported first, spares a short process what it would do for nothing.

- The search for garbage among TensorFlow's objects. They are a million, and stay to the end:
  searching them as they are imported and once more as the process ends takes a third of the time
  of one that does little else.
- Packages that Keras and TensorFlow import only to know whether they are installed, which take a
  fifth of the time of their own import.
"""

import atexit
import gc
import importlib.abc
import os
import sys

gc.disable()
atexit.register(gc.freeze)

_UNUSED = {"pandas", "matplotlib.pyplot", "jax"} - {os.environ.get("KERAS_BACKEND")}


class _NotInstalled(importlib.abc.MetaPathFinder):
    """Says of the packages in `_UNUSED` that they are not installed."""

    def find_spec(self, name, path, target=None):
        if name in _UNUSED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, _NotInstalled())
