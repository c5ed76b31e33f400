"""A page to try a model on: `answers.py` computes what it shows, `page.py` is the page."""

import os

# Before anything imports Gradio, which reads it once: the page contacts nobody outside.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
