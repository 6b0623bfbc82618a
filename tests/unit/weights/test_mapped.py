"""Files in memory: what was read of them can be given back."""

import sys
from pathlib import Path

import numpy as np
import pytest

from smallpress.weights.mapped import let_go, map_file


def resident_bytes():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile:"))
    return int(line.split()[1]) << 10


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone says how much of a file is in memory")
def test_what_was_read_is_given_back_and_read_again(tmp_path):
    numbers = np.arange(4 << 20, dtype=np.uint64)
    (tmp_path / "file").write_bytes(numbers.tobytes())
    data = map_file(tmp_path / "file")
    before = resident_bytes()
    assert np.array_equal(data.view(np.uint64), numbers)
    read = resident_bytes()
    assert read - before > 30 << 20
    let_go(data)
    assert read - resident_bytes() > 30 << 20
    assert np.array_equal(data.view(np.uint64), numbers)


def test_nobody_can_write_into_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    with pytest.raises(ValueError, match="read-only"):
        map_file(tmp_path / "file")[0] = 1
