"""Files and folders that are there whole or not at all, through kills, full disks and power cuts.

The order is what makes it true: write under a temporary name beside the target, fsync every file, write the manifest
with their SHA-256 last and fsync it, fsync the folders, rename, fsync the parent. Until the rename the target's old
content stands; whoever finds the target afterwards finds all of it.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from smallpress.run.errors import UserError, disk_error

MANIFEST = "manifest.json"


def write_file(path: str | Path, data: bytes) -> None:
    """Put `data` at `path` as a whole; on any error the old content stays. Raises UserError with cause and remedy."""
    with atomic_file(path) as file:
        file.write(data)


@contextmanager
def atomic_file(path: str | Path, replace: bool = True) -> Iterator[BinaryIO]:
    """A file beside `path` to write to; when the block ends well it is fsynced and becomes `path`.

    Without `replace`, a `path` that is there already is refused with UserError. The block's own OSErrors become
    UserErrors. If the block fails, nothing is left of it and the old content stays.
    """
    path = Path(path)
    if not replace:
        _refuse_existing(path)
    beside = _beside(path)
    try:
        with open(beside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync(path.parent)
    except OSError as error:
        raise disk_error(error, f"writing {path}") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, replace: bool = False) -> Iterator[Path]:
    """A temporary folder beside `path` to fill; when the block ends well it becomes `path`, with a manifest.

    A folder that is there already is refused with UserError, or with `replace` removed just before the rename.

    The block's own OSErrors become UserErrors too. If the block fails, the temporary folder is removed; if the
    process is killed, it stays under a name starting with a dot, which `remove_leftovers` clears.
    """
    path = Path(path)
    if not replace:
        _refuse_existing(path)
    beside = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.mkdir()
        yield beside
        _seal(beside)
        if replace and path.is_dir():
            remove_folder(path)
        os.rename(beside, path)
        _sync(path.parent)
    except OSError as error:
        raise disk_error(error, f"writing {path}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def verify_folder(path: str | Path) -> None:
    """Check every file of a folder made by `atomic_folder` against its manifest; files it does not list are ignored.

    Raises UserError naming the first file that is missing, cut short or changed.
    """
    path = Path(path)
    for name, entry in _read_manifest(path).items():
        file = path / name
        try:
            size, sha256 = file.stat().st_size, entry["sha256"]
            if size != entry["size"]:
                raise UserError(f"{file} has {size} bytes where {entry['size']} were written", "use an older copy")
            if file_sha256(file) != sha256:
                raise UserError(f"{file} is damaged: its SHA-256 is not {sha256[:12]}...", "use an older copy")
        except FileNotFoundError as error:
            raise UserError(f"{file} is missing", "use an older copy") from error
        except OSError as error:
            raise disk_error(error, f"reading {file}") from error


def file_sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_folder(path: str | Path) -> None:
    """Delete a folder so that nobody can see half of it: rename it away first."""
    path = Path(path)
    away = _beside(path)
    try:
        os.rename(path, away)
        shutil.rmtree(away)
        _sync(path.parent)
    except OSError as error:
        raise disk_error(error, f"removing {path}") from error


def remove_leftovers(folder: str | Path, name: str = "*") -> None:
    """Clear what killed writers of `name` left in `folder`. Only for whoever alone writes there."""
    for leftover in Path(folder).glob(f".{name if name == '*' else escape(name)}.tmp-*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _refuse_existing(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} already exists", "remove it, or choose another name")


def _beside(path: Path) -> Path:
    return path.parent / f".{path.name}.tmp-{secrets.token_hex(6)}"


def _write_and_sync(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Force a file's content, or a folder's list of names, onto the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder; its rename is already durable.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _seal(folder: Path) -> None:
    """Fsync everything in the folder, then write the manifest."""
    entries, folders = {}, [folder]
    for item in sorted(folder.rglob("*")):
        name = item.relative_to(folder).as_posix()
        assert not item.is_symlink(), f"{name} is a link; a sealed folder holds files"
        assert name != MANIFEST, f"{MANIFEST} is written here, not by the caller"
        if item.is_dir():
            folders.append(item)
            continue
        _sync(item)
        entries[name] = {"size": item.stat().st_size, "sha256": file_sha256(item)}
    manifest = json.dumps({"version": 1, "files": entries}, indent=1, ensure_ascii=False)
    _write_and_sync(folder / MANIFEST, manifest.encode())
    for inner in reversed(folders):
        _sync(inner)


def _read_manifest(folder: Path) -> dict[str, Any]:
    """File name -> {"size", "sha256"}; raises UserError unless it is well formed and stays inside the folder."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        files = manifest["files"]
        if manifest["version"] != 1:
            raise UserError(f"{path} is of version {manifest['version']!r}, not 1", "use an older copy")
        for name, entry in files.items():
            parts = PurePosixPath(name).parts
            safe = parts and ".." not in parts and not os.path.isabs(name) and "\\" not in name and "\0" not in name
            if not safe or type(entry["size"]) is not int or type(entry["sha256"]) is not str:
                raise UserError(f"{path}: bad entry {name!r}", "use an older copy")
    except FileNotFoundError as error:
        raise UserError(f"{folder} is incomplete: it has no {MANIFEST}", "use an older copy") from error
    except OSError as error:
        raise disk_error(error, f"reading {path}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged", "use an older copy") from error
    return files
