"""A stand-in for TensorFlow Serving on this machine, to test clients and to measure."""
