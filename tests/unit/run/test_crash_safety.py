"""Every write, fsync, rename and removal fails or is the last one before a kill or a power cut, each in its turn."""

import builtins
import errno
import json
import os
import random
from contextlib import suppress
from pathlib import Path

import pytest

from smallpress.run.atomic import verify_folder, write_file
from smallpress.run.errors import UserError
from smallpress.run.folder import RunFolder
from smallpress.run.metrics import MetricsLog, read_metrics

STEPS, KEEP = 4, 2
OPERATIONS = ("open", "write", "fsync", "ftruncate", "truncate", "rename", "replace", "mkdir", "unlink", "rmdir")


class Killed(BaseException):
    """The process ends here: no `except Exception`, no cleanup that touches the disk."""


class FaultyDisk:
    """The real disk under `root`, with its operations numbered; the one numbered `at` goes wrong.

    "kill": nothing happens on the disk any more, and half of the write under way is there.
    "once" and "full": the operation raises EIO, or it and every later write raises ENOSPC; removing still works.
    What is not yet fsynced is remembered, so that `cut_power` can lose it.
    """

    def __init__(self, root: Path, at: int, fault: str) -> None:
        self.root, self.at, self.fault = str(root), at, fault
        self.n_operations = 0
        self.dead = False
        self.paths: dict[int, str] = {}  # of open descriptors
        self.unsynced_files: set[str] = set()
        self.unsynced_names: list[tuple[str, str, str | None]] = []  # folder, new name, old name
        self.real = {name: getattr(os, name) for name in OPERATIONS}
        self.real_open = builtins.open

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for name in (
            "open",
            "fsync",
            "rename",
            "replace",
            "mkdir",
            "write",
            "unlink",
            "rmdir",
            "ftruncate",
            "truncate",
        ):
            patch.setattr(os, name, getattr(self, name))
        patch.setattr(builtins, "open", self.open_file)

    def operation(self, removes: bool = False) -> bool:
        """Count one operation; True when it is the one to be cut in half by a kill."""
        if self.dead:
            raise Killed
        number, self.n_operations = self.n_operations, self.n_operations + 1
        if self.fault == "kill" and number == self.at:
            self.dead = True
            return True
        if self.fault == "once" and number == self.at:
            raise OSError(errno.EIO, "Input/output error")
        if self.fault == "full" and number >= self.at and not removes:
            raise OSError(errno.ENOSPC, "No space left on device")
        return False

    def whole(self, removes: bool = False) -> None:
        if self.operation(removes):
            raise Killed

    def open(self, path, flags, mode=0o777, *, dir_fd=None):
        descriptor = self.real["open"](path, flags, mode, dir_fd=dir_fd)
        if dir_fd is None:
            self.paths[descriptor] = str(path)
        return descriptor

    def open_file(self, path, mode="r", *arguments, **options):
        if not str(path).startswith(self.root) or not set(mode) & set("wxa+"):
            return self.real_open(path, mode, *arguments, **options)
        self.whole()
        if not os.path.exists(path):
            self.unsynced_names.append((os.path.dirname(path), str(path), None))
        return FaultyFile(self, str(path), self.real_open(path, mode, *arguments, **options))

    def write(self, descriptor, data):
        if descriptor not in self.paths:
            return self.real["write"](descriptor, data)
        if self.operation():
            self.real["write"](descriptor, data[: len(data) // 2])
            raise Killed
        return self.real["write"](descriptor, data)

    def ftruncate(self, descriptor, length):
        self.whole(removes=True)
        self.real["ftruncate"](descriptor, length)

    def truncate(self, path, length):
        self.whole(removes=True)
        self.real["truncate"](path, length)

    def fsync(self, descriptor):
        self.whole()
        self.real["fsync"](descriptor)
        path = self.paths[descriptor]
        self.unsynced_files.discard(path)
        self.unsynced_names = [names for names in self.unsynced_names if names[0] != path]

    def rename(self, old, new):
        self.whole()
        self.real["rename"](old, new)
        old, new = str(old), str(new)
        self.unsynced_files = {path.replace(old, new) for path in self.unsynced_files}
        self.unsynced_names = [
            (folder.replace(old, new), name.replace(old, new), before) for folder, name, before in self.unsynced_names
        ]
        self.unsynced_names.append((os.path.dirname(new), new, old))

    replace = rename

    def mkdir(self, path, mode=0o777, *, dir_fd=None):
        self.whole()
        self.real["mkdir"](path, mode, dir_fd=dir_fd)

    def unlink(self, path, *, dir_fd=None):
        self.whole(removes=True)
        self.real["unlink"](path, dir_fd=dir_fd)

    def rmdir(self, path, *, dir_fd=None):
        self.whole(removes=True)
        self.real["rmdir"](path, dir_fd=dir_fd)

    def cut_power(self, chance: random.Random) -> None:
        """Lose what was never forced onto the disk, each part of it or not, as a real one might."""
        for path in self.unsynced_files:
            if os.path.exists(path) and chance.random() < 0.7:
                size = os.path.getsize(path)
                Path(path).write_bytes(bytes(chance.choice([size, size // 2])))
        for _, new, old in reversed(self.unsynced_names):
            if os.path.exists(new) and chance.random() < 0.7:
                os.unlink(new) if old is None else os.path.exists(old) or os.rename(new, old)


class FaultyFile:
    """A file open for writing, without a buffer that would still reach the disk after the kill."""

    def __init__(self, disk: FaultyDisk, path: str, file) -> None:
        self.disk, self.path, self.file = disk, path, file
        disk.paths[file.fileno()] = path
        disk.unsynced_files.add(path)

    def write(self, data):
        half = self.disk.operation()
        self.disk.unsynced_files.add(self.path)
        self.file.write(data[: len(data) // 2] if half else data)
        self.file.flush()
        if half:
            raise Killed
        return len(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


@pytest.fixture(autouse=True)
def fast_fsync(monkeypatch):
    """The faults are simulated, so a real wait for the disk would prove nothing here."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def new_run(path: Path) -> RunFolder:
    """As RunFolder.create, without asking git and the package index for what to record."""
    path.mkdir()
    (path / "run.json").write_text(json.dumps({"settings": {}, "keep": KEEP}))
    return RunFolder.open(path)


def save(run: RunFolder, step: int) -> None:
    with run.checkpoints.write(step) as folder:
        (folder / "optim").mkdir()
        for name in ("weights", "optim/moments"):
            with open(folder / name, "wb") as file:
                file.write(content(name, step))


def content(name: str, step: int) -> bytes:
    return f"{name} of step {step}".encode() * 20


def train(run: RunFolder, saved: list[int], first: int = 1, last: int = STEPS) -> None:
    with run.writing():
        for step in range(first, last + 1):
            save(run, step)
            saved.append(step)


def assert_newest_is_whole(path: Path, saved: list[int]) -> int:
    """The newest checkpoint loads, is what was written, and is no older than the last one that was reported saved."""
    newest = RunFolder.open(path).checkpoints.newest()
    if newest is None:
        assert not saved
        return 0
    assert newest.step >= max(saved, default=0)
    for name in ("weights", "optim/moments"):
        assert (newest.path / name).read_bytes() == content(name, newest.step)
    return newest.step


def n_operations_of_a_run(tmp_path: Path) -> int:
    disk = FaultyDisk(tmp_path, at=-1, fault="kill")
    run = new_run(tmp_path / "counted")
    with pytest.MonkeyPatch.context() as patch:
        disk.install(patch)
        train(run, [])
    return disk.n_operations


def kill(path: Path, at: int) -> tuple[FaultyDisk, list[int]]:
    run, saved, disk = new_run(path), [], FaultyDisk(path, at, "kill")
    with pytest.MonkeyPatch.context() as patch:
        disk.install(patch)
        with pytest.raises(Killed):
            train(run, saved)
    return disk, saved


def finish(path: Path, from_step: int) -> None:
    run = RunFolder.open(path)
    train(run, [], first=from_step + 1, last=STEPS + 1)
    assert [checkpoint.step for checkpoint in run.checkpoints.all()] == [STEPS, STEPS + 1]
    assert not list(path.rglob(".*.tmp-*"))
    assert_newest_is_whole(path, [STEPS + 1])


def test_the_newest_checkpoint_is_whole_after_a_kill_at_any_operation_and_the_run_goes_on(tmp_path):
    total = n_operations_of_a_run(tmp_path)
    assert total > 60
    for at in range(total):
        path = tmp_path / f"run-{at}"
        _, saved = kill(path, at)
        for checkpoint in RunFolder.open(path).checkpoints.all():
            verify_folder(checkpoint.path)
        finish(path, assert_newest_is_whole(path, saved))


@pytest.mark.parametrize("fault", ["once", "full"])
def test_the_newest_checkpoint_is_whole_after_a_failure_at_any_operation_and_the_run_goes_on(tmp_path, fault):
    for at in range(n_operations_of_a_run(tmp_path)):
        path = tmp_path / f"run-{at}"
        run, saved, disk = new_run(path), [], FaultyDisk(path, at, fault)
        with pytest.MonkeyPatch.context() as patch:
            disk.install(patch)
            try:
                train(run, saved)
            except UserError as error:
                told = str(error)
                assert "no space left" in told or "input/output error" in told
        if fault == "full":
            assert not list(path.rglob(".*.tmp-*")), "a failed save leaves nothing behind"
        finish(path, min(assert_newest_is_whole(path, saved), STEPS - 1))


@pytest.mark.parametrize("seed", range(4))
def test_the_newest_checkpoint_is_whole_after_a_power_cut_at_any_operation(tmp_path, seed):
    for at in range(n_operations_of_a_run(tmp_path)):
        path = tmp_path / f"run-{at}"
        disk, saved = kill(path, at)
        disk.cut_power(random.Random(f"{seed} {at}"))
        assert_newest_is_whole(path, saved)


def test_a_run_can_be_created_again_after_a_kill_at_any_operation_of_its_creation(tmp_path):
    at, killed = 0, True
    while killed:
        path, killed = tmp_path / f"run-{at}", False
        disk = FaultyDisk(path, at, "kill")
        with pytest.MonkeyPatch.context() as patch:
            disk.install(patch)
            try:
                RunFolder.create(path, {"lr": 1e-3})
            except Killed:
                killed = True
        try:
            run = RunFolder.open(path)
        except UserError:
            run = RunFolder.create(path, {"lr": 1e-3})
        assert run.settings == {"lr": 1e-3}
        at += 1
    assert at > 5


def test_a_file_keeps_its_old_content_until_the_new_one_is_whole(tmp_path):
    for at in range(4):
        path = tmp_path / f"file-{at}"
        write_file(path, b"old")
        with pytest.MonkeyPatch.context() as patch:
            FaultyDisk(tmp_path, at, "kill").install(patch)
            with pytest.raises(Killed):
                write_file(path, b"the new one")
        assert path.read_bytes() in (b"old", b"the new one")
        assert at > 2 or path.read_bytes() == b"old"


@pytest.mark.parametrize("fault", ["kill", "once"])
def test_metrics_hold_whole_lines_after_a_fault_at_any_operation(tmp_path, fault):
    for at in range(2 * 5 + 1):
        path, written = tmp_path / f"metrics-{fault}-{at}.jsonl", []
        with pytest.MonkeyPatch.context() as patch:
            FaultyDisk(tmp_path, at, fault).install(patch)
            with suppress(Killed, UserError), MetricsLog(path) as log:
                for step in range(1, 5):
                    with suppress(UserError):  # A disk that fails once: the next step may well be written.
                        log.write(step, {"reward": step / 2})
                        written.append(step)
        kept = [row["step"] for row in read_metrics(path)]
        assert kept[: len(written)] == written and len(kept) <= len(written) + 1
        with MetricsLog(path) as log:
            log.write(9, {"reward": 1.0})
            assert [row["step"] for row in log.read()] == [*kept, 9]


def test_metrics_of_steps_after_the_checkpoint_are_forgotten_on_resume(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        for step in range(1, 5):
            log.write(step, {"reward": step / 2})
        log.truncate_after(2)
        log.write(3, {"reward": 7.0})
        assert log.read() == [{"step": 1, "reward": 0.5}, {"step": 2, "reward": 1.0}, {"step": 3, "reward": 7.0}]


def test_every_damaged_byte_is_noticed_and_the_previous_checkpoint_is_used(tmp_path):
    run = RunFolder.create(tmp_path / "run", {}, keep=KEEP)
    train(run, [])
    newest = run.checkpoints.path_of(STEPS)
    for name in ("weights", "optim/moments", "manifest.json"):
        data = (newest / name).read_bytes()
        for position in range(0, len(data), 7):
            (newest / name).write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
            told = []
            found = run.checkpoints.newest(told.append)
            assert found.step == STEPS - 1, f"{name} byte {position}"
            assert str(newest) in told[0] and (name == "manifest.json" or name in told[0])
        (newest / name).write_bytes(data[:-1])
        assert run.checkpoints.newest().step == STEPS - 1
        (newest / name).write_bytes(data)
    assert run.checkpoints.newest().step == STEPS


def test_a_run_whose_checkpoints_are_all_damaged_says_which_file(tmp_path):
    run = RunFolder.create(tmp_path / "run", {}, keep=KEEP)
    train(run, [])
    for checkpoint in run.checkpoints.all():
        (checkpoint.path / "weights").unlink()
    with pytest.raises(UserError, match=r"no checkpoint is whole: .*step-000003/weights is missing"):
        run.checkpoints.newest()
