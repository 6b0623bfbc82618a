"""A run of many processes on disk, by torch's distributed checkpoints (DCP), in safetensors and without pickle.

    step-000100/shard-00001-model-00001-of-00001.safetensors   what the first process holds; one such file for each
                state.json                                     step, cursors, counters
                manifest.json                                  size and SHA-256 of all, written last

Every tensor has its global name and shape, each file the place of its rows, so any number of processes may take the run
up, one too; and many take up the checkpoint of a run of one. All processes must see the same folder.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, Shard

from smallpress.optim.master import STATE_KEYS, MasterWeights
from smallpress.parallel.ranks import Ranks
from smallpress.parallel.recode import code_anew, cuts
from smallpress.parallel.weights import Place, SpreadWeights
from smallpress.run.atomic import atomic_folder, write_file
from smallpress.run.errors import UserError, disk_error
from smallpress.weights.checkpoint import MAX_STATE_BYTES, STATE, Trained
from smallpress.weights.json_files import read_json_object

NARROW = ("adamw/exp_avg_scales", "adamw/exp_avg_sq_scales")
"""Of a moment in 8 bits: its blocks run through one process's rows, so every process has its own."""


class Spread(Trained, Protocol):
    """A run whose arrays belong to weights: their names end in "/" and the weight's name."""

    @property
    def weights(self) -> MasterWeights: ...


@dataclass(frozen=True, slots=True)
class _Part:
    """A tensor of the run as this process has it, and what it is a part of."""

    name: str
    on_disk: str
    place: Place | None  # None: all of it is here

    @classmethod
    def of(cls, name: str, weights: MasterWeights, ranks: Ranks) -> "_Part":
        kind, _, weight = name.rpartition("/")
        place = weights.places[weight] if isinstance(weights, SpreadWeights) else None
        if place is None or place.mesh is None or kind == "adamw/step":
            place = None
        on_disk = name
        if place is not None and place.mesh is not None and kind in NARROW:
            on_disk += f"/{place.mesh.get_local_rank()}-of-{place.mesh.size()}"
            place = None
        if ranks.loose and kind.startswith("adamw/"):
            on_disk = f"replica-{ranks.replica}/{on_disk}"
        return cls(name, on_disk, place)

    def stored(self, tensor: Tensor) -> Tensor:
        """The tensor of global shape that these rows are a part of; itself where it is no part of one."""
        if self.place is None or self.place.mesh is None:
            return tensor
        shape = self.place.shape
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(tensor, self.place.mesh, [Shard(0)], run_check=False, shape=shape, stride=stride)


def save_spread(path: Path, trained: Spread, more: Mapping[str, Any], ranks: Ranks) -> None:
    """Write the folder `path` together; the first process makes it whole. Raises UserError where a disk refuses."""
    trained.weights.settle()
    parts = {name: _Part.of(name, trained.weights, ranks) for name in trained.tensors()}
    tensors = {parts[name].on_disk: parts[name].stored(tensor) for name, tensor in trained.tensors().items()}
    if not ranks.first:
        _write(Path(ranks.told(None)), tensors)
        return ranks.wait()
    with atomic_folder(path) as beside:
        _write(Path(ranks.told(str(beside))), tensors)
        state = json.loads(json.dumps(trained.state() | dict(more), allow_nan=False))
        write_file(beside / STATE, json.dumps(state).encode())
    ranks.wait()


def load_spread(path: Path, trained: Spread, more: Sequence[str], ranks: Ranks) -> Mapping[str, Any]:
    """Take up a verified checkpoint of any number of processes; its state.

    Raises UserError unless it is of this model under these settings, by a version of the same state.
    """
    state = read_json_object(path / STATE, MAX_STATE_BYTES)
    for key in (*trained.state(), *more):
        if key not in state:
            raise UserError(f"{path} has no {key}", "go on with the smallpress that wrote it")
    reader = HuggingFaceStorageReader(str(path))
    found: Mapping[str, Any] = reader.read_metadata().state_dict_metadata
    local, stored = {}, {}
    for part, shape in _wanted(trained, ranks, found):
        if part.on_disk not in found:
            raise UserError(f"{path} has no {part.on_disk}", "restore the run's model")
        here = torch.Size(found[part.on_disk].size) if shape is None else shape
        local[part.name] = torch.zeros(here, dtype=found[part.on_disk].properties.dtype)
        stored[part.on_disk] = part.stored(local[part.name])
        if tuple(found[part.on_disk].size) != tuple(stored[part.on_disk].shape):
            raise UserError(f"{path} is of another model: {part.name} differs", "restore the run's model")
    _read(stored, reader, ranks.alone)
    code_anew(local, trained.weights)
    trained.restore(local, state)
    return state


def read_whole(path: Path, prefix: str = "weights/") -> dict[str, Tensor]:
    """Every tensor under `prefix`, whole, by one process alone: what a model is exported from."""
    reader = HuggingFaceStorageReader(str(path))
    found: Mapping[str, Any] = reader.read_metadata().state_dict_metadata
    tensors = {
        name: torch.zeros(tuple(entry.size), dtype=entry.properties.dtype)
        for name, entry in found.items()
        if name.startswith(prefix)
    }
    _read(tensors, reader, alone=True)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _read(tensors: dict[str, Tensor], reader: HuggingFaceStorageReader, alone: bool) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as it should be: one process reads
        load(tensors, storage_reader=reader, no_dist=alone)


def _write(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    try:
        save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:
        for rank, (cause, _) in error.failures.items():
            if isinstance(cause, OSError):
                raise disk_error(cause, f"rank {rank} writing {folder}") from error
        raise


def _wanted(trained: Spread, ranks: Ranks, found: Mapping[str, Any]) -> Iterator[tuple[_Part, torch.Size | None]]:
    """What this process needs of a checkpoint that has `found`, with its shape here; None: the shape on disk.

    A replica's own moments become those of every n-th replica, where there were n of them, or none before.
    """
    for name, tensor in trained.tensors().items():
        if not name.startswith("adamw/") and (not name.startswith("outer/") or name in found):
            yield _Part.of(name, trained.weights, ranks), tensor.shape
    before = {int(name[8 : name.index("/")]) for name in found if name.startswith("replica-")}
    prefix = f"replica-{ranks.replica % len(before)}/" if before else ""
    for weight, master in trained.weights.master.items():
        if f"{prefix}adamw/step/{weight}" not in found or not master.numel():
            continue
        for key in STATE_KEYS:
            part = _Part.of(f"adamw/{key}/{weight}", trained.weights, ranks)
            on_disk = prefix + part.on_disk.removeprefix(f"replica-{ranks.replica}/")
            is_coded = found[f"{prefix}adamw/exp_avg/{weight}"].properties.dtype == torch.uint8
            if part.name.startswith(NARROW) and not is_coded:
                continue
            if part.name.startswith(NARROW) and on_disk not in found:
                all_of = cuts(found, f"{prefix}{part.name}")
                for i, at in enumerate(all_of):
                    yield _Part(f"{part.name}/{i}-of-{len(all_of)}", at, None), None
                continue
            own_shape = key == "step" or part.name.startswith(NARROW)
            yield replace(part, on_disk=on_disk), None if own_shape else master.shape
