"""JSON objects out of files nobody vouches for."""

import json
from pathlib import Path
from typing import Any, NoReturn

from smallpress.run.errors import disk_error
from smallpress.weights.errors import FormatError

MAX_BYTES = 1 << 25


def read_json_object(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The object in the file. Raises FormatError for anything else: too long, nested too deep, not UTF-8, NaN."""
    try:
        with open(path, "rb") as file:
            text = file.read(max_bytes + 1)
    except OSError as error:
        raise disk_error(error, f"reading {path}") from error
    if len(text) > max_bytes:
        raise FormatError(path, max_bytes, f"the file is longer than {max_bytes} bytes")
    try:
        value = json.loads(text.decode("utf-8-sig"), parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise FormatError(path, error.start, "the file is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise FormatError(path, len(error.doc[: error.pos].encode()), error.msg.lower()) from error
    except (ValueError, RecursionError) as error:
        raise FormatError(path, 0, f"the file is not plain JSON ({type(error).__name__})") from error
    if not isinstance(value, dict):
        raise FormatError(path, 0, f"the file holds a {type(value).__name__}, not an object")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
