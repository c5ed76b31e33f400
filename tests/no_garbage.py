"""Imported first, spares a short process the search for garbage among TensorFlow's objects.

They are a million, and stay to the end: searching them as they are imported and once more as the
process ends takes a third of the time of one that does little else.
"""

import atexit
import gc

gc.disable()
atexit.register(gc.freeze)
