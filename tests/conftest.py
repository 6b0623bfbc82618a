"""What every test may rely on: one thread, seeded torch, no hub, Ctrl-C, and the real model where it can be had."""

import os
import signal
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # Before torch is imported anywhere: sums come out the same on every machine.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from hypothesis import settings

from smallpress.run.errors import UserError

signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's background job ignores it, and what it starts too.

settings.register_profile("smallpress", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("smallpress")


@pytest.fixture(autouse=True)
def seeded_torch():
    """Where torch is loaded, it starts every test from the same random state."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The GGUF of SmolLM2-135M-Instruct from the store (SMALLPRESS_HOME), pulled when absent; else a skip."""
    from smallpress.weights.pull import pull

    try:
        return pull("smollm2-135m").path
    except UserError as error:
        pytest.skip(f"smollm2-135m cannot be had: {error}")
