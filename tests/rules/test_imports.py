"""What a plain install needs, and what help must not wait for."""

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src/smallpress"
WITHOUT_TORCH = ("run", "corpus", "tokenizer", "tasks", "cli")
NO_TORCH = "import sys; sys.modules['torch'] = None\n"


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200)


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_every_module_of_the_room_imports_without_torch(room):
    modules = [f"smallpress.{room}.{path.stem}" for path in sorted((PACKAGE / room).glob("*.py"))]
    done = python(NO_TORCH + "".join(f"import {module}\n" for module in modules if not module.endswith("__init__")))
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_nothing_else():
    loaded = python("import smallpress, sys; print([name for name in sys.modules if 'smallpress' in name])").stdout
    assert "'smallpress'" in loaded and "smallpress." not in loaded


def test_help_waits_for_no_heavy_package():
    done = python(
        "import sys; from smallpress.cli.main import run; run(['--help'])\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'jinja2', 'tokenizers', 'transformers'} & set(sys.modules)\n"
        "print(heavy, file=sys.stderr)"
    )
    assert "Usage: smallpress" in done.stdout and done.stderr.strip() == "set()"


def test_a_plain_install_answers_a_question_without_torch(smollm2):
    pytest.importorskip("smallpress._native")
    done = python(
        NO_TORCH + "from smallpress.cli.main import run\n"
        f"sys.exit(run(['run', {str(smollm2)!r}, 'Say hello.', '--temperature', '0', '--max-tokens', '12']))"
    )
    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout.lower()
