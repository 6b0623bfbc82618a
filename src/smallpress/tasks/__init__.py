"""Questions a program can check: families of generated problems, readers of problem files, and the checkers.

Standard library only; no model and no network.
"""
