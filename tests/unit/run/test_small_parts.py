"""Errors, seeds, the store's place, progress and the machine."""

import errno
import io
import subprocess
import sys

import pytest

from smallpress.run.errors import UserError, disk_error
from smallpress.run.home import store_dir
from smallpress.run.machine import this_machine
from smallpress.run.progress import Progress, clock_time, progress_line
from smallpress.run.seeds import derive_seed


def test_a_users_error_is_one_line_whatever_a_file_put_into_it():
    assert str(UserError("bad")) == "bad"
    assert (
        str(UserError("bad\nname \x1b[31m\u2028 \u202e 小", "mend it"))
        == r"bad\nname \x1b[31m\u2028 \u202e 小; mend it"
    )


def test_a_full_disk_is_told_with_its_remedy():
    told = disk_error(OSError(errno.ENOSPC, "No space left on device"), "writing runs/a")
    assert str(told) == "writing runs/a: no space left on device; free some space, or choose a folder on another disk"
    assert "(other.bin)" in str(
        disk_error(OSError(errno.ENOENT, "No such file or directory", "other.bin"), "writing a")
    )
    assert str(disk_error(OSError("odd"), "reading a")) == "reading a: odd; check the path and the disk"


def test_seeds_depend_on_every_part_and_its_type_and_on_nothing_else():
    parts = [(0,), ("0",), (1,), ("a", "b"), ("ab",), ("a", 1), ("a1",), (-1,), (2**70,), ("小",), ("\ud800",)]
    seeds = [derive_seed(*some) for some in parts]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**63 for seed in seeds)
    program = "from smallpress.run.seeds import derive_seed; print(derive_seed('rollout', 7, 'x'))"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert int(other) == derive_seed("rollout", 7, "x") == 6682355100449805533


def test_a_seed_of_something_else_is_our_fault():
    for part in (1.0, None, True):
        with pytest.raises(AssertionError, match="neither a string nor an int"):
            derive_seed(part)


def test_the_store_is_where_the_user_says_or_in_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SMALLPRESS_HOME", str(tmp_path / "models"))
    assert store_dir() == tmp_path / "models"
    monkeypatch.delenv("SMALLPRESS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        assert store_dir() == tmp_path / "cache" / "smallpress"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/invalid")
        assert store_dir() == tmp_path / ".cache" / "smallpress"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems find the home elsewhere")
@pytest.mark.parametrize("home", ["", "relative"])
def test_a_user_without_a_home_is_told_to_name_a_folder(monkeypatch, home):
    monkeypatch.delenv("SMALLPRESS_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", home)
    with pytest.raises(UserError, match="this user has no home folder; set SMALLPRESS_HOME"):
        store_dir()


def test_progress_says_a_line_every_ten_seconds_and_one_at_the_end():
    out, now = io.StringIO(), iter([0, 4, 11, 11, 12, 20, 20]).__next__
    with Progress("pulling", total=100, unit="files", stream=out, clock=now) as progress:
        for amount in (20, 30, 50):
            progress.advance(amount)
    assert out.getvalue().splitlines() == [
        "pulling: 50 of 100 files (50 %), 0:11 left",
        "pulling: 100 of 100 files (100 %) in 0:20",
    ]


def test_quick_work_says_nothing():
    out = io.StringIO()
    with Progress("pulling", total=1, stream=out, clock=lambda: 0.0) as progress:
        progress.advance()
    assert out.getvalue() == ""


def test_progress_on_a_terminal_is_a_bar_that_shows_labels_as_they_are(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with Progress("pulling [bold]x", total=2_000_000, unit="B", stream=out) as progress:
        progress.advance(2_000_000)
    assert "pulling [bold]x" in out.getvalue() and "2.0/2.0 MB" in out.getvalue()


def test_the_time_left_supposes_the_same_speed():
    assert progress_line("eval", 25, 100, "questions", 20.0) == "eval: 25 of 100 questions (25 %), 1:00 left"
    assert progress_line("eval", 0, 100, "", 20.0) == "eval: 0 of 100 (0 %)"
    assert progress_line("eval", 5, None, "", 61.0) == "eval: 5, 1:01 so far"
    assert [clock_time(s) for s in (0, 59.6, 3599.7, 86400)] == ["0:00", "1:00", "1:00:00", "24:00:00"]


def test_the_machine_is_known():
    machine = this_machine()
    assert machine.cores >= 1 and machine.cpu and machine.system
    assert 0 <= machine.memory_free <= machine.memory
