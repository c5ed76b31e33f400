"""The commands `crossvit train|evaluate|predict|export|convert|demo`, one file each.

`crossvit_command.py`, outside the package, runs them.
"""
