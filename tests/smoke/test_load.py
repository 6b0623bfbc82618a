"""The proofs under load in their small form: each script of bench/ runs, and finds what it is to find."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

BENCH = Path(__file__).parents[2] / "bench"


def proof(script, model, *words):
    command = [sys.executable, BENCH / script, "--model", model, *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    return done.stdout


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="memory is read from /proc")
def test_many_streams_and_clients_that_leave(tiny_model):
    out = proof("serve_soak.py", tiny_model, "--streams", 100, "--requests", 150, "--slow", 0, "--patience", 10)
    assert "ok   100 of 100 streams" in out and "ok   0 places are taken" in out and "NOT" not in out


def test_a_second_turn_is_found_in_memory_and_on_disk(tiny_model):
    out = proof("prefix_cache.py", tiny_model, "--lines", 10, "--conversations", 1, "--at-least", 0)
    found = {name: int(n) for name, n in re.findall(r"^(computed|in memory|on disk) .* (\d+)$", out, re.MULTILINE)}
    # 64 is a unit of the disk, 16 a page; the two turns share all of the first prompt but the end of its last page.
    assert found["computed"] < 64 < found["on disk"] <= found["in memory"] and found["on disk"] % 16 == 0


def test_chats_at_once_are_timed(tiny_model):
    out = proof("serve_load.py", tiny_model, "--alone", "--chats", 4, "--words", 10, "--out", 8, "--rounds", 1)
    (rate,) = re.findall(r"^smallpress +(\d+\.\d)", out, re.MULTILINE)
    assert float(rate) > 0
