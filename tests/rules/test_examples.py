"""The examples in docstrings are true."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src/smallpress"
EXAMPLE = re.compile(r"^ +>>> ", re.MULTILINE)
WITH_EXAMPLES = [path for path in sorted(PACKAGE.glob("*/*.py")) if EXAMPLE.search(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_the_examples_in_docstrings_are_true(path):
    module = importlib.import_module(f"smallpress.{path.parent.name}.{path.stem}")
    results = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.attempted > 0 and results.failed == 0
