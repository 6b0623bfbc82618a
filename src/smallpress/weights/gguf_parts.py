"""A GGUF model in several files, as llama.cpp splits them: model-00001-of-00003.gguf and so on, seen as one.

Each part is a GGUF file of its own with some of the tensors and the keys split.no (from 0), split.count and
split.tensors.count (of all parts); the first has the other metadata too. Source: llama.cpp's gguf-split.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallpress.run.errors import UserError
from smallpress.weights.errors import FormatError
from smallpress.weights.gguf import GGUFFile, TensorInfo, open_gguf

PART_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
COUNT = "split.count"
MAX_PARTS = 4096


class GGUFParts:
    """`metadata` without the keys of the split, `tensors` in the order of the parts; else as a single file."""

    def __init__(self, files: Sequence[GGUFFile]):
        self.path = files[0].path
        first = files[0].metadata.items()
        self.metadata: dict[str, Any] = {key: value for key, value in first if not key.startswith("split.")}
        self._files = {name: file for file in files for name in file.tensors}
        self.tensors: dict[str, TensorInfo] = {name: file.tensors[name] for name, file in self._files.items()}

    def raw(self, name: str) -> NDArray[np.uint8]:
        return self._files[name].raw(name)

    def read(self, name: str) -> NDArray[np.float32]:
        return self._files[name].read(name)

    def let_go(self) -> None:
        for file in set(self._files.values()):
            file.let_go()


def open_gguf_model(path: Path) -> GGUFFile | GGUFParts:
    """One file, or all parts of the model that the file is a part of.

    Raises FormatError where a file breaks the format or is no part of this model, UserError where parts are missing.
    """
    match = PART_NAME.fullmatch(path.name)
    if match is None or int(match["count"]) < 2:
        return open_gguf(path)
    names = part_names(path)
    missing = [name for name in names if not (path.parent / name).exists()]
    if missing:
        which = f"{len(missing)} of the {len(names)} parts of this model are missing, the first {missing[0]}"
        raise UserError(f"{path.parent}: {which}", "fetch them into the same folder")
    files = [open_gguf(path.parent / name) for name in names]
    for number, file in enumerate(files):
        _check_part(file, number, files)
    return GGUFParts(files)


def part_names(path: Path) -> list[str]:
    """The names of all parts of the model, of which `path` is one."""
    match = PART_NAME.fullmatch(path.name)
    assert match is not None, path
    count = int(match["count"])
    if count > MAX_PARTS:
        raise UserError(f"{path} is one of {count} parts", f"at most {MAX_PARTS} are read: join some of them")
    return [f"{match['stem']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]


def first_part(paths: Sequence[Path]) -> Path | None:
    """The first part, where `paths` are parts of one model and nothing else."""
    matches = [PART_NAME.fullmatch(path.name) for path in paths]
    models = {(match["stem"], match["count"]) for match in matches if match is not None}
    return min(paths) if len(models) == 1 and None not in matches else None


def _check_part(file: GGUFFile, number: int, files: Sequence[GGUFFile]) -> None:
    """Whether `file` is what its name says, and no tensor of it is in an earlier part."""
    expected = {"split.no": number, COUNT: len(files), "split.tensors.count": sum(len(f.tensors) for f in files)}
    for key, value in expected.items():
        if file.metadata.get(key) != value:
            raise FormatError(file.path, 0, f"{key} is {file.metadata.get(key)!r}, which the parts make {value}")
    for earlier in files[:number]:
        if twice := file.tensors.keys() & earlier.tensors.keys():
            raise FormatError(file.path, 0, f"tensor {min(twice)!r} is in {earlier.path.name} too")
