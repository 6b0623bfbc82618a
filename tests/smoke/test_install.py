"""Installing where there is no compiler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_without_a_compiler_the_package_is_plain_python_and_doctor_says_so(tmp_path):
    pytest.importorskip("scikit_build_core", reason="the build needs no network only where its backend is installed")
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    command = [*pip, f"--config-settings=build-dir={tmp_path / 'build'}", f"--target={target}", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"CXX": "/bin/false"})
    assert done.returncode == 0, done.stderr
    assert [path.name for path in target.rglob("_native*")] == ["_native.pyi"]

    # -S: the package of these tests, perhaps installed in place, is not found before the new one.
    program = "import sys; sys.modules['torch'] = None; from smallpress.cli.main import main; main()"
    paths = os.pathsep.join([str(target), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": paths, "SMALLPRESS_HOME": str(tmp_path)}
    command = [sys.executable, "-S", "-c", program, "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert str(target) in done.stdout and "-> for speed: install a C++ compiler" in done.stdout
