"""Held-out questions, answers, intervals, reports."""
