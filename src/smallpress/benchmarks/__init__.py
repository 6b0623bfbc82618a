"""Published benchmarks: how each is read, asked and judged, one file each, and the table that names them.

Standard library only; the questions come from files the user has.
"""
