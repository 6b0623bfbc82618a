"""What a person calls a model -> where it lies. Nobody else knows where models come from.

    ./runs/a/model   a folder              smollm2-135m   the catalogue's name, from the store
    tiny.gguf        a file                org/name       the hub's name, from the store, else from Hugging Face's cache

Nothing is fetched here: only `pull` opens a socket.
"""

import os
import re
from pathlib import Path

from smallpress.run.errors import UserError
from smallpress.run.home import store_dir
from smallpress.run.settings import nearest
from smallpress.weights.catalogue import CATALOGUE
from smallpress.weights.store import NAME, check_name, model_folder, open_path

COMMIT = re.compile(r"[0-9a-f]{40}")


def resolve(reference: str, offline: bool = False, store: Path | None = None) -> Path:
    """The folder or .gguf file meant by `reference`. Raises UserError saying what would make it available.

    A catalogue name means the catalogue's model even where a folder of that name lies about; `./name` is the folder.
    """
    store = store_dir() if store is None else store
    if reference not in CATALOGUE:
        path = _existing(reference)
        if path is not None:
            return path
        looks_like_path = reference.endswith(".gguf") or not NAME.fullmatch(reference) or reference.startswith(".")
        if looks_like_path:
            raise UserError(f"{reference} does not exist", "give a folder, a .gguf file, a catalogue name or org/name")
    name = check_name(reference)
    if "/" not in name and name not in CATALOGUE:
        remedy = f"{nearest(name, CATALOGUE)}, or give a folder, a .gguf file or org/name"
        raise UserError(f"{name!r} is neither a file nor in the catalogue", remedy)
    folder = model_folder(store, name)
    if folder.exists():
        return open_path(folder)
    cached = _from_hf_cache(name) if "/" in name else None
    if cached is not None:
        return cached
    where = " on a machine with a network, and copy the store" if offline else ""
    raise UserError(f"{name} is not on this machine", f"smallpress pull {name}{where}")


def _existing(reference: str) -> Path | None:
    """The path, if it is one and leads to something."""
    try:
        path = Path(reference).expanduser()
        return path if reference and path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long, no such user, a zero byte
        return None


def hf_cache() -> Path:
    """The folder of Hugging Face's own cache (read, never written)."""
    if chosen := os.environ.get("HF_HUB_CACHE"):
        return Path(chosen).expanduser()
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(home).expanduser() / "hub"


def resolve_adapter(reference: str) -> Path:
    """The folder of a low-rank adapter: a path, or org/name from Hugging Face's cache; UserError otherwise."""
    path = _existing(reference)
    if path is None and NAME.fullmatch(reference) and "/" in reference:
        path = _from_hf_cache(reference, "adapter_config.json")
    if path is None:
        raise UserError(f"the adapter {reference} is not on this machine", "give a folder, or fetch it: hf download")
    return path


def _from_hf_cache(name: str, config: str = "config.json") -> Path | None:
    """The snapshot `main` points to, else the newest one, if it has a config."""
    repository = hf_cache() / f"models--{name.replace('/', '--')}"
    main = repository / "refs" / "main"
    try:
        commit = main.read_text(encoding="ascii").strip() if main.is_file() else ""
        snapshots = sorted((repository / "snapshots").glob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
    except (OSError, UnicodeDecodeError):
        return None
    if COMMIT.fullmatch(commit):
        snapshots = [repository / "snapshots" / commit]
    return next((snapshot for snapshot in snapshots if (snapshot / config).is_file()), None)
