"""The commands `crossvit train|evaluate|predict|export|convert|demo`, a file each.

`crossvit_command.py`, outside of the package, runs them.
"""
