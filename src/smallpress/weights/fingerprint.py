"""What tells one model's weights from another's: their content."""

from hashlib import sha256
from pathlib import Path

from smallpress.run.atomic import file_sha256
from smallpress.run.errors import disk_error
from smallpress.weights.gguf_parts import PART_NAME, part_names


def weights_hash(path: Path) -> str:
    """Of the GGUF file, all its parts, or of the folder's config and safetensors; reads them once. In hexadecimal."""
    whole = sha256()
    try:
        for file in _files(path):
            whole.update(f"{file_sha256(file)}\n".encode())
    except OSError as error:
        raise disk_error(error, f"reading {path}") from error
    return whole.hexdigest()


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return [path / "config.json", *sorted(path.glob("*.safetensors"))]
    if PART_NAME.fullmatch(path.name):
        return [path.parent / name for name in part_names(path)]
    return [path]
