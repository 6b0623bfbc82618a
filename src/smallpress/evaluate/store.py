"""Answers kept as they come, so that a long evaluation goes on where it was stopped.

A file of JSON lines: a first one naming the model, then one an answer. An answer's key is a hash of everything it
depends on (form, sampling, question, number of the draw), so answers to other questions, or drawn otherwise, may stand
beside it, and asking for more questions or samples asks only what is missing.
"""

import json
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, Self

from smallpress.evaluate.result import Sampling, identity
from smallpress.run.errors import UserError, disk_error
from smallpress.tasks.example import Example

STORE_SCHEMA = "smallpress.answers/1"


@dataclass(frozen=True, slots=True)
class Said:
    """One completion. `n_thinking` of its tokens are thinking; `truncated`: it reached its limit."""

    text: str
    n_tokens: int
    n_thinking: int
    truncated: bool


def answer_key(example: Example, i: int, form: str, sampling: Sampling) -> str:
    """The name of the question's i-th answer, whatever else is asked and however many samples there are."""
    how = sampling.model_dump(exclude={"samples"})
    parts = json.dumps([form, how, identity(example), i], sort_keys=True)
    return blake2b(parts.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


class AnswerStore:
    """Opened for one model; each `put` is on disk when it returns, but for a power cut."""

    def __init__(self, path: str | Path, model: str) -> None:
        """Raises UserError where the file is another model's or none of ours."""
        self.path = Path(path)
        self._kept: dict[str, Said] = {}
        try:
            whole = self._read(model) if self.path.exists() else 0
            self._file: IO[bytes] = open(self.path, "ab")  # noqa: SIM115
            self._file.truncate(whole)  # half a line, where the last run was killed
            if whole == 0:
                self._write({"schema": STORE_SCHEMA, "model": model})
        except OSError as error:
            raise disk_error(error, f"writing {self.path}") from error

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> Said | None:
        return self._kept.get(key)

    def put(self, key: str, said: Said) -> None:
        try:
            self._write({"key": key, **asdict(said)})
        except OSError as error:
            raise disk_error(error, f"writing {self.path}") from error
        self._kept[key] = said

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, value: dict[str, object]) -> None:
        self._file.write(json.dumps(value).encode() + b"\n")
        self._file.flush()

    def _read(self, model: str) -> int:
        """Keep every whole line; returns where the last one ends."""
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        lines = data[:whole].splitlines()
        remedy = "remove it, or choose another --out"
        for n, line in enumerate(lines):
            try:
                value = json.loads(line)
                if n == 0:
                    if (value["schema"], value["model"]) != (STORE_SCHEMA, model):
                        raise UserError(f"{self.path} holds answers of {value['model']}, not of {model}", remedy)
                    continue
                key = value.pop("key")
                said = Said(**value)
                types = (str, int, int, bool)
                if tuple(map(type, (said.text, said.n_tokens, said.n_thinking, said.truncated))) != types:
                    raise ValueError
                self._kept[key] = said
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise UserError(f"{self.path}, line {n + 1}, is no answer", remedy) from error
        return whole if lines else 0
