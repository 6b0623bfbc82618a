"""Settings of a model file, read with checks: every fault names the file and the key."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from smallpress.run.errors import UserError

DEFAULT_ROPE_THETA = 10000.0
MAX_LAYERS = 4096


class Reader:
    """The settings under `prefix`, with the names of the tensors beside them; `asked` are the keys looked up so far."""

    def __init__(self, settings: Mapping[str, Any], tensor_names: Collection[str], source: str, prefix: str = ""):
        self.settings, self.tensor_names, self.source, self.prefix = settings, tensor_names, source, prefix
        self.asked: set[str] = set()

    def get(self, key: str) -> Any:
        self.asked.add(self.prefix + key)
        return self.settings.get(self.prefix + key)

    def whole(self, key: str, default: int | None = None) -> int:
        value = self.get(key)
        return int(number(default if value is None else value, self.prefix + key, int, self.source))

    def count(self, key: str, default: int = 0) -> int:
        """A whole number that may be 0."""
        value = self.get(key)
        return default if value is None else 0 if value == 0 and type(value) is int else self.whole(key)

    def real(self, key: str, default: float | None = None) -> float:
        value = self.get(key)
        return float(number(default if value is None else value, self.prefix + key, float, self.source))

    def n_layers(self, key: str = "num_hidden_layers") -> int:
        n_layers = self.whole(key)
        if n_layers > MAX_LAYERS:
            raise UserError(f"{self.source}: {n_layers} layers are more than the {MAX_LAYERS} allowed")
        return n_layers

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.get(key)
        return bool(default if value is None else value)

    def one(self, key: str, default: int | None = None) -> int:
        """A number that some files give once for all layers and others layer by layer."""
        value = self.get(key)
        if isinstance(value, list):
            if not value or any(each != value[0] for each in value):
                raise self.unknown(key)
            value = value[0]
        return int(number(default if value is None else value, self.prefix + key, int, self.source))

    def must_be(self, key: str, *plain: Any) -> None:
        """Refuses any other value than these, or none."""
        if self.get(key) not in (None, *plain):
            raise self.unknown(key)

    def unknown(self, key: str) -> UserError:
        what = f"{self.prefix}{key} {self.get(key)!r} is not implemented"
        return UserError(f"{self.source}: {what}", "give a plain, unquantized model")

    def has_bias(self, *stems: str) -> bool:
        return any(f"{stem}.bias" in self.tensor_names for stem in stems)


class RoundedReader(Reader):
    """Of a file that keeps its numbers in fp32: they are read as they were written."""

    def real(self, key: str, default: float | None = None) -> float:
        return float(as_written(super().real(key, default)))


def as_written(value: Any) -> Any:
    """A number of a GGUF as a person wrote it: fp32 makes 9.999999747378752e-06 of 1e-05, and seven digits restore it.

    >>> as_written(9.999999747378752e-06), as_written(7)
    (1e-05, 7)
    """
    return float(f"{value:.7g}") if isinstance(value, float) else value


def number(value: Any, key: str, kind: type[int] | type[float], source: str) -> Any:
    """`value` as a positive number of that kind. Raises UserError, naming source and key, for anything else."""
    allowed = (int, float) if kind is float else (int,)
    if type(value) not in allowed or not 0 < value < 1 << 53 or not math.isfinite(value):
        what = "whole number" if kind is int else "number"
        raise UserError(f"{source}: {key} is {value!r}; a positive {what} is expected", "fetch it again")
    return kind(value)
