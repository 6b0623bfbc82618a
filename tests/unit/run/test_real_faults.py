"""Real kills and a real limit of the system, where test_crash_safety.py simulates every point."""

import random
import signal
import subprocess
import sys
import time

import pytest

from smallpress.run.atomic import atomic_folder
from smallpress.run.errors import UserError
from smallpress.run.folder import RunFolder

WRITER = """
import sys
from pathlib import Path
from smallpress.run.folder import RunFolder
run = RunFolder.open(sys.argv[1])
newest = run.checkpoints.newest()
step = newest.step if newest else 0
with run.writing():
    print("ready", flush=True)
    while True:
        step += 1
        with run.checkpoints.write(step) as folder:
            (folder / "weights").write_bytes(str(step).encode() * 40000)
"""


def test_real_kills_at_random_moments_leave_a_whole_checkpoint(tmp_path):
    run, chance = RunFolder.create(tmp_path / "run", {}, keep=2), random.Random(0)
    reached = 0
    for _ in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(run.path)], stdout=subprocess.PIPE)
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(chance.uniform(0.0, 0.1))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        newest = run.checkpoints.newest()
        if newest is not None:
            assert (newest.path / "weights").read_bytes() == str(newest.step).encode() * 40000
            assert newest.step >= reached
            reached = newest.step
    assert reached > 0


def test_the_system_refusing_to_grow_a_file_is_one_line_and_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource", reason="this system has no limit on file sizes")
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
        with pytest.raises(UserError, match="file too large"), atomic_folder(tmp_path / "model") as folder:
            (folder / "weights").write_bytes(bytes(20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
