"""A whole run at one step, on disk: every tensor bit for bit, and the rest as JSON, in a folder that is there or not.

    step-000100/tensors.safetensors   weights, optimizer moments, random states, ...
                state.json            step, cursors, counters
                manifest.json         size and SHA-256 of both, written last

The folder is written beside its name, fsynced and renamed (run.atomic), so a crash leaves the older checkpoints whole.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from smallpress.run.atomic import atomic_folder, verify_folder, write_file
from smallpress.run.errors import UserError
from smallpress.weights.json_files import read_json_object
from smallpress.weights.safetensors import DTYPES, TensorInfo, open_safetensors
from smallpress.weights.safetensors_writer import LazyTensor, write_safetensors

TENSORS, STATE = "tensors.safetensors", "state.json"
MAX_STATE_BYTES = 1 << 30

TORCH_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def save_checkpoint(path: str | Path, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    """Write the checkpoint `path`; it must not exist yet. Raises UserError where the disk refuses.

    `state` must survive JSON unchanged: text keys, lists, no NaN. Tensors on the CPU are written from where they are.
    """
    text = json.dumps(state, allow_nan=False)
    assert json.loads(text) == state, "the state does not survive JSON: text keys and lists only"
    with atomic_folder(path) as folder:
        write_safetensors(folder / TENSORS, {name: _outgoing(tensor) for name, tensor in tensors.items()})
        write_file(folder / STATE, text.encode())


class Checkpoint:
    """An opened checkpoint: `state`, and tensors read one by one."""

    def __init__(self, path: Path):
        self.path, self.state = path, read_json_object(path / STATE, MAX_STATE_BYTES)
        self._file = open_safetensors(path / TENSORS)

    def __iter__(self) -> Iterator[str]:
        """The tensors' names."""
        return iter(self._file.tensors)

    def read(self, name: str) -> torch.Tensor:
        """The tensor in memory of its own. Raises UserError where the checkpoint has none of that name."""
        info = self._info(name)
        tensor = torch.empty(info.shape, dtype=TORCH_DTYPES[info.dtype])
        np.copyto(_bytes(tensor), self._file.raw(name))
        return tensor

    def read_into(self, name: str, target: torch.Tensor) -> None:
        """Fill `target` in place. Raises UserError where name, shape or dtype differ."""
        info = self._info(name)
        if info.shape != tuple(target.shape) or TORCH_DTYPES[info.dtype] != target.dtype:
            want = f"{NAMES[target.dtype]} {list(target.shape)}"
            what = f"{self.path}: {name} is {info.dtype} {list(info.shape)}, but the run calls for {want}"
            raise UserError(what, "resume with the settings it was written under")
        if target.device.type == "cpu" and target.is_contiguous():
            np.copyto(_bytes(target), self._file.raw(name))
        else:
            with torch.no_grad():
                target.copy_(self.read(name))

    def _info(self, name: str) -> TensorInfo:
        if name not in self._file.tensors:
            raise UserError(f"{self.path} has no tensor {name}", "resume with the settings it was written under")
        return self._file.tensors[name]


def load_checkpoint(path: str | Path, verify: bool = True) -> Checkpoint:
    """Open a checkpoint, by default after checking every byte against its manifest.

    Raises UserError naming the file that is missing or damaged.
    """
    path = Path(path)
    if verify:
        verify_folder(path)
    return Checkpoint(path)


class Trained(Protocol):
    """What a checkpoint holds: arrays by name, and a state that survives JSON."""

    def tensors(self) -> dict[str, torch.Tensor]: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, tensors: dict[str, torch.Tensor], state: Mapping[str, Any]) -> None: ...


def save_trained(path: Path, trained: Trained, more: Mapping[str, Any]) -> None:
    """Write all of it, and `more` in its state."""
    save_checkpoint(path, trained.tensors(), json.loads(json.dumps(trained.state() | dict(more))))


def load_trained(path: Path, trained: Trained, more: Sequence[str]) -> Mapping[str, Any]:
    """Give back what `save_trained` wrote to a verified folder; its state.

    Raises UserError unless the checkpoint is of this model under these settings, by a version of the same state.
    """
    checkpoint = load_checkpoint(path, verify=False)
    for key in (*trained.state(), *more):
        if key not in checkpoint.state:
            raise UserError(f"{path} has no {key}", "go on with the smallpress that wrote it")
    tensors = {name: checkpoint.read(name) for name in checkpoint}
    for name, tensor in trained.tensors().items():
        if name not in tensors or tensors[name].shape != tensor.shape:
            raise UserError(f"{path} is of another model: {name} differs", "restore the run's model")
    trained.restore(tensors, checkpoint.state)
    return checkpoint.state


def _outgoing(tensor: torch.Tensor) -> LazyTensor:
    name, shape = NAMES[tensor.dtype], tuple(tensor.shape)
    return LazyTensor(name, shape, lambda: _bytes(tensor.cpu().contiguous()).view(DTYPES[name]).reshape(shape))


def _bytes(tensor: torch.Tensor) -> NDArray[np.uint8]:
    """The memory of a contiguous tensor on the CPU, one-dimensional; not a copy."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy()
