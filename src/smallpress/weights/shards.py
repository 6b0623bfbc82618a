"""The safetensors files of one folder as one: model.safetensors, or shards with an index."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smallpress.run.errors import UserError
from smallpress.weights.errors import FormatError
from smallpress.weights.fp8 import dequantize
from smallpress.weights.json_files import read_json_object
from smallpress.weights.safetensors import SafetensorsFile, open_safetensors

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
FP8, SCALE = "F8_E4M3", "_scale_inv"
"""The type, and what is behind the name of such a tensor in that of its scales."""
SHARD_NAME = re.compile(r"[A-Za-z0-9._-]+\.safetensors")


class Shards:
    """`shapes` by tensor name, the scales of FP8 tensors left out; `read` as of a single file, FP8 times its scales;
    `stored`: its type's name and its bytes, as they are."""

    def __init__(self, files: Mapping[str, SafetensorsFile], fp8_block: tuple[int, int] | None = None):
        self._files, self._block = files, fp8_block
        scaled = [name for name in files if self.dtype(name) == FP8]
        for name in scaled:
            self._check_scale(name)
        scales = {name + SCALE for name in scaled}
        self.shapes = {name: file.tensors[name].shape for name, file in files.items() if name not in scales}

    def dtype(self, name: str) -> str:
        return self._files[name].tensors[name].dtype

    def read(self, name: str) -> NDArray[np.float32]:
        if self.dtype(name) != FP8:
            return self._files[name].read(name)
        assert self._block is not None
        scale = self._files[name + SCALE].read(name + SCALE)
        return dequantize(self._files[name].stored(name), scale, self._block)

    def _check_scale(self, name: str) -> None:
        file, scale = self._files[name], self._files.get(name + SCALE)
        place, shape = file.tensors[name].offset, file.tensors[name].shape
        if self._block is None:
            raise FormatError(file.path, place, f"tensor {name!r} is FP8, and config.json gives no weight_block_size")
        if scale is None or len(shape) != 2:
            raise FormatError(file.path, place, f"the FP8 tensor {name!r} has no scales {name + SCALE!r}")
        wanted = tuple(-(-n // block) for n, block in zip(shape, self._block, strict=True))
        if scale.tensors[name + SCALE].shape != wanted:
            info = scale.tensors[name + SCALE]
            what = f"the scales of {name!r} have shape {list(info.shape)}, not {list(wanted)}"
            raise FormatError(scale.path, info.offset, what)

    def stored(self, name: str) -> tuple[str, NDArray[np.uint8]]:
        return self._files[name].tensors[name].dtype, self._files[name].raw(name)

    def let_go(self) -> None:
        for file in set(self._files.values()):
            file.let_go()


def open_shards(folder: Path, fp8_block: tuple[int, int] | None = None) -> Shards:
    """Open the folder's weights; `fp8_block`: rows and columns that share a scale, where some are FP8.

    Raises UserError where there are none, FormatError where index and files disagree.
    """
    if (folder / SINGLE).exists():
        file = open_safetensors(folder / SINGLE)
        return Shards(dict.fromkeys(file.tensors, file), fp8_block)
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
    return Shards({name: files[shard] for name, shard in places.items()}, fp8_block)


def shard_of_each_tensor(index: Path) -> dict[str, str]:
    """tensor name -> file name, from the index; file names that lead out of the folder are refused."""
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise FormatError(index, 0, "the index has no weight_map")
    for name, shard in places.items():
        if not isinstance(shard, str) or not SHARD_NAME.fullmatch(shard):
            raise FormatError(index, 0, f"tensor {name!r} is placed in {shard!r}, which is no shard's name")
    return places
