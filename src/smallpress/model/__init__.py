"""Ids in, logits out: the architectures, in torch, one file an idea."""
