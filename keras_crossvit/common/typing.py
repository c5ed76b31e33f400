"""Names for what the type checker cannot know."""

from typing import Any

# A tensor of whichever backend runs, or a symbolic `KerasTensor`.
Tensor = Any
# The size of each axis, None where it is not known. "Any" saves code that needs a size, which
# `build` has checked, from asserting that it is there.
Shape = tuple[int | Any, ...]
# A Keras dtype policy or its name; None for the global policy.
DType = Any
