"""What a report is drawn from: the files of a run folder, read strictly, and where each is absent, nothing."""

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from smallpress.run.errors import UserError, disk_error
from smallpress.run.metrics import read_metrics

Row = Mapping[str, Any]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line; [] where it is absent. A last line cut short by a kill is left out."""
    if not path.is_file():
        return []
    lines = _read(path).split("\n")
    rows = []
    for i, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if i == len(lines):
                break
            raise UserError(f"{path}, line {i}: not JSON ({error})", "remove the line") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {i}: not a JSON object", "remove the line")
        rows.append(row)
    return rows


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file's object; {} where it is absent."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})", "restore the file, or remove it") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a JSON object", "restore the file, or remove it")
    return value


def metrics_of(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.jsonl, oldest first; [] before the first step."""
    path = folder / "metrics.jsonl"
    return read_metrics(path) if path.is_file() else []


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 and isfinite(value)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise disk_error(error, f"reading {path}") from error
