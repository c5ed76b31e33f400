"""The commands `crossvit train|evaluate|predict|export|convert`, a file each.

`crossvit_command.py`, outside of the package, runs them.
"""
