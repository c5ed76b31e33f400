"""Packages that only some exports need."""

import importlib.util


def require(purpose, *packages):
    """Raises ImportError, which names the extra to install, if one of `packages` is absent."""
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    if absent:
        raise ImportError(
            f"{purpose} needs {' and '.join(absent)}: "
            'pip install "keras-crossvit[tensorflow,runtimes]"'
        )
