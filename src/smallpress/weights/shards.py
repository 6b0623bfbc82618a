"""The safetensors files of one folder as one: model.safetensors, or shards with an index."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smallpress.run.errors import UserError
from smallpress.weights.errors import FormatError
from smallpress.weights.json_files import read_json_object
from smallpress.weights.safetensors import SafetensorsFile, open_safetensors

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_NAME = re.compile(r"[A-Za-z0-9._-]+\.safetensors")


class Shards:
    """`shapes` and `dtypes` by tensor name; `read` as of a single file."""

    def __init__(self, files: Mapping[str, SafetensorsFile]):
        self._files = files
        self.shapes = {name: file.tensors[name].shape for name, file in files.items()}
        self.dtypes = {name: file.tensors[name].dtype for name, file in files.items()}

    def read(self, name: str) -> NDArray[np.float32]:
        return self._files[name].read(name)


def open_shards(folder: Path) -> Shards:
    """Open the folder's weights. Raises UserError where there are none, FormatError where index and files disagree."""
    if (folder / SINGLE).exists():
        file = open_safetensors(folder / SINGLE)
        return Shards(dict.fromkeys(file.tensors, file))
    index = folder / INDEX
    if not index.exists():
        what = f"{folder} has neither {SINGLE} nor {INDEX}"
        raise UserError(what, "give a folder with safetensors weights; pickled .bin weights are never read")
    places = shard_of_each_tensor(index)
    files = {shard: open_safetensors(folder / shard) for shard in sorted(set(places.values()))}
    for name, shard in places.items():
        if name not in files[shard].tensors:
            raise FormatError(index, 0, f"tensor {name!r} is not in {shard}, where the index has it")
    for shard, file in files.items():
        for name in file.tensors:
            if places.get(name) != shard:
                raise FormatError(file.path, 0, f"tensor {name!r} is not listed for this file in {INDEX}")
    return Shards({name: files[shard] for name, shard in places.items()})


def shard_of_each_tensor(index: Path) -> dict[str, str]:
    """tensor name -> file name, from the index; file names that lead out of the folder are refused."""
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise FormatError(index, 0, "the index has no weight_map")
    for name, shard in places.items():
        if not isinstance(shard, str) or not SHARD_NAME.fullmatch(shard):
            raise FormatError(index, 0, f"tensor {name!r} is placed in {shard!r}, which is no shard's name")
    return places
