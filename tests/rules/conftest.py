"""What the rules look at: the source tree, parsed once."""

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Source:
    """One Python file; `room` is "" for the package's own __init__, "tests" and the like outside the package."""

    path: Path
    text: str
    tree: ast.Module
    room: str

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def package() -> list[Source]:
    """Every Python file of the package."""
    return [_source(path) for path in sorted((ROOT / "src/smallpress").rglob("*.py"))]


@pytest.fixture(scope="session")
def all_sources(package) -> list[Source]:
    """The package's files, and those of tests and bench."""
    others = [path for folder in ("tests", "bench") for path in sorted((ROOT / folder).rglob("*.py"))]
    return package + [_source(path) for path in others]


def _source(path: Path) -> Source:
    parts = path.relative_to(ROOT).parts
    room = parts[0] if parts[0] != "src" else parts[2] if len(parts) > 3 else ""
    text = path.read_text(encoding="utf-8")
    return Source(path, text, ast.parse(text, filename=str(path)), room)
