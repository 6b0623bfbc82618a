"""What the store holds."""

from dataclasses import dataclass
from pathlib import Path

from smallpress.run.errors import UserError
from smallpress.run.home import store_dir
from smallpress.weights.store import Source, read_source


@dataclass(frozen=True, slots=True)
class StoredModel:
    """`problem` says why a folder of the store cannot be used; `source` is then None."""

    name: str
    path: Path
    nbytes: int
    source: Source | None
    problem: str = ""


def list_models(store: Path | None = None) -> list[StoredModel]:
    """The store's models by name; temporary folders of running pulls are left out."""
    models = (store_dir() if store is None else store) / "models"
    if not models.is_dir():
        return []
    return [_describe(folder) for folder in sorted(models.iterdir()) if folder.is_dir() and folder.name[0] != "."]


def _describe(folder: Path) -> StoredModel:
    nbytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    try:
        source = read_source(folder)
    except UserError as error:
        return StoredModel(folder.name.replace("--", "/"), folder, nbytes, None, str(error))
    return StoredModel(source.name, folder / source.model, nbytes, source)
