"""A run's folder: what was asked (run.json), what happened (metrics.jsonl, samples/), how far it is (checkpoints/)."""

import errno
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import smallpress
from smallpress.run.atomic import atomic_folder, remove_folder, remove_leftovers, verify_folder, write_file
from smallpress.run.errors import UserError, disk_error
from smallpress.run.machine import this_machine

_RECORDED_PACKAGES = ("torch", "numpy", "tokenizers", "pydantic", "jinja2")


class RunFolder:
    """One run. `create` starts it, `open` comes back to it; `with run.writing():` is for the one process that works.

    .path         the folder
    .settings     the resolved settings, as in run.json
    .verb         the verb that began it, which knows how to go on
    .checkpoints  Checkpoints
    .samples      folder for what the model wrote along the way
    .metrics      path of metrics.jsonl, for MetricsLog
    """

    def __init__(self, path: Path, record: Mapping[str, Any], keep: int) -> None:
        self.path = path
        self.record = record
        self.settings: dict[str, Any] = record["settings"]
        self.verb = str(record.get("verb", "grpo"))
        self.metrics = path / "metrics.jsonl"
        self.samples = path / "samples"
        self.checkpoints = Checkpoints(path / "checkpoints", keep)

    @classmethod
    def create(cls, path: str | Path, settings: Mapping[str, Any], keep: int = 2, verb: str = "grpo") -> "RunFolder":
        """Start a run in a new or empty folder; keep the last `keep` checkpoints. Raises UserError if it is in use."""
        path = Path(path)
        record = {"verb": verb, "settings": dict(settings), "keep": keep, **_circumstances()}
        data = _as_json(record)
        try:
            path.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path)
            cls.check_new(path)
        except OSError as error:
            raise disk_error(error, f"creating {path}") from error
        write_file(path / "run.json", data)
        return cls.open(path)

    def renewed(self, settings: Mapping[str, Any]) -> "RunFolder":
        """The same run under other settings; what they change must not have been done yet."""
        record = dict(self.record) | {"settings": dict(settings)}
        write_file(self.path / "run.json", _as_json(record))
        return RunFolder(self.path, record, self.checkpoints.keep)

    @staticmethod
    def check_new(path: Path) -> None:
        """Raises UserError where a run could not be started, before there is anything to lose; writes nothing."""
        try:
            if path.exists() and any(item.name != ".lock" for item in path.iterdir()):
                raise UserError(f"{path} is not empty", "choose a new name, or continue that run: smallpress resume")
            os.scandir(next(part for part in (path, *path.absolute().parents) if part.exists())).close()
        except OSError as error:
            raise disk_error(error, f"creating {path}") from error

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """Come back to a run. Raises UserError when `path` holds none, or its run.json is damaged."""
        path = Path(path)
        file = path / "run.json"
        try:
            record = json.loads(file.read_bytes())
            keep = record["keep"]
            if not isinstance(record["settings"], dict) or type(keep) is not int or keep < 1:
                raise UserError(f"{file} is damaged", "restore it from a copy")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(f"{path} is not a run: it has no run.json", "give the folder of a run") from error
        except OSError as error:
            raise disk_error(error, f"reading {file}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{file} is damaged", "restore it from a copy") from error
        return cls(path, record, keep)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Hold the run for this process; a second one gets UserError. Clears what a kill left in its folder."""
        with _locked(self.path):
            try:
                remove_leftovers(self.path)
            except OSError as error:
                raise disk_error(error, f"preparing {self.path}") from error
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """As `holding`, with the folders of steps: makes them, clears what a kill left there."""
        with self.holding():
            try:
                for folder in (self.samples, self.checkpoints.path):
                    folder.mkdir(exist_ok=True)
                    remove_leftovers(folder)
            except OSError as error:
                raise disk_error(error, f"preparing {self.path}") from error
            yield


@dataclass(frozen=True, slots=True)
class Checkpoint:
    step: int
    path: Path


class Checkpoints:
    """checkpoints/step-000100/ and its siblings: each whole or absent, the newest `keep` of them kept."""

    def __init__(self, path: Path, keep: int) -> None:
        assert keep >= 1, f"{keep=}"
        self.path, self.keep = path, keep

    def all(self) -> list[Checkpoint]:
        """By step, oldest first; not verified."""
        found = []
        for item in self.path.iterdir() if self.path.is_dir() else ():
            if (name := re.fullmatch(r"step-(\d{6,})", item.name)) and item.is_dir():
                found.append(Checkpoint(int(name[1]), item))
        return sorted(found, key=lambda checkpoint: checkpoint.step)

    @contextmanager
    def write(self, step: int) -> Iterator[Path]:
        """A temporary folder to fill; when the block ends well it is the checkpoint of `step`, and `settle` follows."""
        with atomic_folder(self.path_of(step), replace=True) as beside:
            yield beside
        self.settle(step)

    def path_of(self, step: int) -> Path:
        return self.path / f"step-{step:06}"

    def newest(self, on_damage: Callable[[str], None] = lambda why: None) -> Checkpoint | None:
        """The newest one whose every byte verifies; None if none was ever written.

        Falls back past damaged ones, telling `on_damage` about each. Raises UserError when none is left.
        """
        damage = ""
        for checkpoint in reversed(self.all()):
            try:
                verify_folder(checkpoint.path)
            except UserError as error:
                damage = error.message
                on_damage(damage)
                continue
            return checkpoint
        if damage:
            raise UserError(f"no checkpoint is whole: {damage}", "start the run again in a new folder")
        return None

    def settle(self, step: int) -> None:
        """After the checkpoint of `step` was written: delete all but the newest `keep`, and later ones.

        The new one is read back and verified before an older one goes.
        """
        self.forget_after(step)
        if old := self.all()[: -self.keep]:
            verify_folder(self.path_of(step))
            for checkpoint in old:
                remove_folder(checkpoint.path)

    def forget_after(self, step: int) -> None:
        """Delete the checkpoints after `step`: a run resumed from it has given up the future they belong to."""
        for checkpoint in self.all():
            if checkpoint.step > step:
                remove_folder(checkpoint.path)


def _as_json(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _circumstances() -> dict[str, Any]:
    """What else decides a run's numbers: versions, machine, commit, command."""
    versions = {"smallpress": smallpress.__version__, "python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": versions,
        "machine": asdict(this_machine()),
        "commit": _commit(Path(smallpress.__file__).resolve().parents[2]),
    }


def _commit(root: Path) -> str | None:
    """The git commit this code was run from, with "+changes" if files differ from it; None outside its repository."""
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """An exclusive lock that the system gives back when the process ends, however it ends."""
    try:
        with open(path / ".lock", "a+") as file:
            lock(file, path)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            holding = os.dup(file.fileno())
    except OSError as error:
        raise disk_error(error, f"locking {path}") from error
    try:
        yield
    finally:
        os.close(holding)


def lock(file: IO[str], path: Path) -> None:
    """Have `file`, which stands for the folder `path`, alone until it is closed; UserError where another has it."""
    try:
        import fcntl
    except ImportError:  # Windows has no such lock.
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read(20).strip() or "unknown"
        raise UserError(f"{path} is being written by process {holder}", "wait for it, or stop it") from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # Some network file systems have no locks.
            raise
