"""Files of prefixes: bounded, checked, kept over a restart; whatever the disk does is a miss and a line."""

import errno
import os

import numpy as np
import pytest

from smallpress.engine import prefix_disk
from smallpress.engine.prefix_disk import HEAD, PrefixDisk, max_bytes
from smallpress.run.errors import UserError

N = 1000
SIZE = HEAD.size + N


def content(i):
    return np.random.default_rng(i).integers(0, 256, N, dtype=np.uint8)


@pytest.fixture
def open_disk(tmp_path):
    """Opens the same folder anew each time; what was open is closed before."""
    opened, said = [], []

    def begin(n_units=100):
        if opened:
            opened.pop().close()
        disk = PrefixDisk(tmp_path / "kv", n_units * SIZE, said.append)
        disk.said = said
        opened.append(disk)
        return disk

    yield begin
    for disk in opened:
        disk.close()


def files(tmp_path):
    return sorted(tmp_path.glob("kv/*/*"))


def test_what_was_put_is_read_after_a_restart_by_the_same_model_only(open_disk):
    open_disk().of("weights", "form").put(b"a", content(1))
    disk = open_disk()
    shelf = disk.of("weights", "form")
    assert shelf.holds(b"a") and (shelf.read(b"a", N) == content(1)).all()
    assert not disk.of("other", "form").holds(b"a") and not disk.of("weights", "other").holds(b"a")
    assert disk.said == []


def test_another_version_finds_nothing(open_disk, monkeypatch):
    open_disk().of("weights", "form").put(b"a", content(1))
    monkeypatch.setattr(prefix_disk, "__version__", "another")
    assert not open_disk().of("weights", "form").holds(b"a")


def test_the_folder_is_its_owners_alone(open_disk, tmp_path):
    open_disk().of("weights", "form")
    assert (tmp_path / "kv").stat().st_mode & 0o077 == 0


def test_the_bound_holds_and_what_was_used_longest_ago_goes_first(open_disk, tmp_path):
    shelf = open_disk(3).of("weights", "form")
    for name in (b"a", b"b", b"c"):
        shelf.put(name, content(1))
    shelf = open_disk(3).of("weights", "form")  # the restart waits for the writer
    shelf.used([b"a", b"b"])
    shelf.put(b"d", content(2))
    shelf = open_disk(3).of("weights", "form")
    assert [shelf.holds(name) for name in (b"a", b"b", b"c", b"d")] == [True, True, False, True]
    shelf.used([b"a"])
    shelf = open_disk(1).of("weights", "form")  # the order is known to the next process too
    assert [path.stem for path in files(tmp_path)] == [b"a".hex()] and shelf.holds(b"a")


@pytest.mark.parametrize("place", [0, 9, HEAD.size, -1])
def test_a_damaged_file_is_a_miss_and_a_line_and_goes(open_disk, tmp_path, place):
    open_disk().of("weights", "form").put(b"a", content(1))
    disk = open_disk()
    (path,) = files(tmp_path)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    shelf = disk.of("weights", "form")
    assert shelf.read(b"a", N) is None and not path.exists() and not shelf.holds(b"a")
    assert len(disk.said) == 1 and "is damaged; removed" in disk.said[0]


@pytest.mark.parametrize("n_bytes", [0, HEAD.size, SIZE - 1, SIZE + 1])
def test_a_file_of_another_length_is_a_miss(open_disk, tmp_path, n_bytes):
    open_disk().of("weights", "form").put(b"a", content(1))
    disk = open_disk()
    (path,) = files(tmp_path)
    path.write_bytes((path.read_bytes() + b"x")[:n_bytes])
    assert disk.of("weights", "form").read(b"a", N) is None and len(disk.said) == 1


def test_a_file_under_anothers_name_is_a_miss(open_disk, tmp_path):
    open_disk().of("weights", "form").put(b"a", content(1))
    disk = open_disk()
    (path,) = files(tmp_path)
    path.rename(path.with_name(b"b".hex() + ".kv"))
    shelf = open_disk().of("weights", "form")
    assert shelf.holds(b"b") and shelf.read(b"b", N) is None and "damaged" in disk.said[0]


def test_a_file_that_somebody_removed_is_a_miss(open_disk, tmp_path):
    open_disk().of("weights", "form").put(b"a", content(1))
    disk = open_disk()
    files(tmp_path)[0].unlink()
    shelf = disk.of("weights", "form")
    assert shelf.read(b"a", N) is None and not shelf.holds(b"a") and disk.n_bytes == 0


def test_a_full_disk_is_a_line_and_no_more_tries_for_a_while(open_disk, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    disk = open_disk()
    shelf = disk.of("weights", "form")
    monkeypatch.setattr(prefix_disk.os, "replace", full)
    for i in range(5):
        assert shelf.put(bytes([i]), content(i))
    disk = open_disk()
    assert files(tmp_path) == [] and len(disk.said) == 1 and "No space left" in disk.said[0]


def test_what_a_killed_process_left_half_written_is_cleared(open_disk, tmp_path):
    open_disk().of("weights", "form").put(b"a", content(1))
    open_disk()
    half = files(tmp_path)[0].with_suffix(".kv.new")
    half.write_bytes(b"half")
    stranger = half.with_name("notes.txt")
    stranger.write_text("not ours")
    open_disk(0)
    assert files(tmp_path) == [stranger]


def test_a_folder_is_one_process_alone(open_disk, tmp_path):
    open_disk()
    with pytest.raises(UserError, match=f"is being written by process {os.getpid()}"):
        PrefixDisk(tmp_path / "kv", 1000, print)


def test_a_folder_that_cannot_be_had_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="opening the cache"):
        PrefixDisk(tmp_path / "file" / "kv", 1000, print)
    with pytest.raises(UserError, match="cache_size is nan"):
        max_bytes(float("nan"))
