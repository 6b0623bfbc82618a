"""Supervised training: fine-tuning, low-rank adapters, preferences, distillation."""
