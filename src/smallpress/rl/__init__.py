"""Rollout, reward, advantage, loss: GRPO."""
