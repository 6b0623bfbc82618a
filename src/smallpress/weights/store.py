"""The store: pulled models, one folder each, there whole or not at all.

<store>/models/smollm2-135m/        a catalogue name
<store>/models/org--name/           a hub name, org/name
    source.json                     where it came from, its licence, which file is the model
    manifest.json                   size and SHA-256 of every file
"""

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from smallpress.run.atomic import remove_folder
from smallpress.run.errors import UserError
from smallpress.weights.errors import FormatError
from smallpress.weights.json_files import read_json_object

NAME = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?")
MAX_NAME_CHARS = 96
SOURCE_NOTE = "source.json"
ABANDONED_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Source:
    """`model` is what to open inside the folder: a .gguf's name, or "." for a Hugging Face folder."""

    name: str
    model: str
    source: str
    licence: str | None
    origin: str | None


def check_name(name: str) -> str:
    """The name, if it is one: letters, digits and ._- in one or two parts, none of which could lead out of a folder."""
    parts = name.split("/")
    harmless = all(part.strip(".") and not part.startswith("-") and ".." not in part for part in parts)
    if not NAME.fullmatch(name) or len(name) > MAX_NAME_CHARS or not harmless or "--" in name:
        raise UserError(f"{name[:100]!r} is no model name", "give a folder, a .gguf file, a catalogue name or org/name")
    return name


def model_folder(store: Path, name: str) -> Path:
    """Where the model of that name lies or would lie, always directly under the store's `models`."""
    folder = store / "models" / check_name(name).replace("/", "--")
    assert folder.parent == store / "models", folder
    return folder


def read_source(folder: Path) -> Source:
    """The note in a model's folder. Raises UserError where it is absent or damaged."""
    note = read_json_object(folder / SOURCE_NOTE)
    texts = {key: value for key, value in note.items() if isinstance(value, str)}
    if not {"name", "model", "source"} <= set(texts):
        raise FormatError(folder / SOURCE_NOTE, 0, "name, model or source is missing or no text")
    model = texts["model"]
    if "/" in model or "\\" in model or model == "..":
        raise FormatError(folder / SOURCE_NOTE, 0, f"model {model!r} lies outside its folder")
    return Source(texts["name"], model, texts["source"], texts.get("licence"), texts.get("origin"))


def open_path(folder: Path) -> Path:
    """What `open_model` takes, for a folder of the store. Raises UserError where it is damaged."""
    path = folder / read_source(folder).model
    if not path.exists():
        raise UserError(f"{path} is missing from the store", f"remove {folder} and pull again")
    return path


def clear_abandoned(folder: Path) -> None:
    """Remove what pulls of this model left that were killed a day ago or longer; running ones are younger."""
    for leftover in folder.parent.glob(f".{folder.name}.tmp-*"):
        with suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > ABANDONED_SECONDS:
                remove_folder(leftover)
