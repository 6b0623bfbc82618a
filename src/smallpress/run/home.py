"""Where pulled models lie on this machine."""

import os
import sys
from pathlib import Path

from smallpress.run.errors import UserError


def store_dir() -> Path:
    """The folder of pulled models: SMALLPRESS_HOME, else `smallpress` in the user's cache folder. Not created here."""
    if chosen := os.environ.get("SMALLPRESS_HOME"):
        return _expand(chosen)
    return _cache_dir() / "smallpress"


def _cache_dir() -> Path:
    if sys.platform == "darwin":
        return _expand("~/Library/Caches")
    variable, default = (
        ("LOCALAPPDATA", "~/AppData/Local") if sys.platform == "win32" else ("XDG_CACHE_HOME", "~/.cache")
    )
    chosen = os.environ.get(variable, "")
    # The XDG specification: a relative path is invalid and is to be ignored.
    return Path(chosen) if os.path.isabs(chosen) else _expand(default)


def _expand(path: str) -> Path:
    """The path from the root on, with ~ as the user's home; relative ones are taken from the current folder."""
    try:
        expanded = Path(path).expanduser()
        if path.startswith("~") and (os.environ.get("HOME") == "" or not expanded.is_absolute()):
            raise RuntimeError("HOME is empty or relative")
        return expanded.absolute()
    except (RuntimeError, FileNotFoundError) as error:
        raise UserError("this user has no home folder", "set SMALLPRESS_HOME to a folder for models") from error
