"""Gradients in, better weights out."""
