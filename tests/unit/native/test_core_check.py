"""The core without Python (tests/native): on processors this machine is not, and under sanitizers."""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CXX = os.environ.get("CXX", "c++")
ARM = "aarch64-linux-gnu-"
BUILDS = {
    "native": (CXX, "-Og"),
    "memory": (CXX, "-Og -g1 -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all"),
    "threads": (CXX, "-Og -g1 -fsanitize=thread"),
    "arm": (f"{ARM}g++", "-O2 -static"),
}
"""Compiler, flags; fewer optimizations than an installed core has, because most of the time here is the compiler's."""
QUIET_CHILDREN = "--no-threads-in-children"
"""Neither QEMU nor TSan follows a forked child of a program with threads that starts some of its own."""

on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the core is built for another processor here")


def run(*command: str | Path, **options) -> str:
    """Its output; where it fails, the test does, with the end of all that it said."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-4000:]}"
    return done.stdout


def need(*programs: str) -> None:
    if missing := [program for program in programs if not shutil.which(program)]:
        pytest.skip(f"without {' and '.join(missing)}")


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Callable[[str], Path]:
    """The folder of one of BUILDS, made when it is first asked for."""
    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        compiler, flags = BUILDS[name]
        need("cmake", compiler)
        if name not in folders:
            path = tmp_path_factory.mktemp(name)
            probe = [compiler, *flags.split(), "-x", "c++", "-", "-o", str(path / "probe")]
            if subprocess.run(probe, input=b"int main() {}", capture_output=True).returncode:
                pytest.skip(f"{compiler} does not link with {flags}")
            target = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"] if name == "arm" else []
            options = {"CXX_COMPILER": compiler, "CXX_FLAGS": flags, "BUILD_TYPE": "Debug", "CXX_FLAGS_DEBUG": ""}
            settings = [f"-DCMAKE_{key}={value}" for key, value in options.items()]
            run("cmake", "-S", ROOT, "-B", path, "-DSMALLPRESS_CHECK=ON", *settings, *target)
            run("cmake", "--build", path, "--parallel", str(os.cpu_count() or 1))
            folders[name] = path
        return folders[name]

    return folder


@pytest.mark.parametrize(("name", "words"), [("native", []), ("memory", []), ("threads", [QUIET_CHILDREN])])
def test_every_table_of_this_processor_is_right_and_no_sanitizer_complains(built, name, words):
    run(built(name) / "core_check", *words)


@on_x86
@pytest.mark.parametrize(("cpu", "tables"), [("Nehalem", ["scalar"]), ("Haswell", ["avx2", "scalar"])])
def test_an_older_processor_runs_what_it_can(built, cpu, tables):
    need("qemu-x86_64")
    run("qemu-x86_64", "-cpu", cpu, built("native") / "core_check", QUIET_CHILDREN, *tables)


@pytest.mark.parametrize(
    ("cpu", "tables"),
    [
        ("cortex-a72", ["neon", "scalar"]),
        ("neoverse-n1", ["dotprod", "neon", "scalar"]),
        ("max", ["i8mm", "dotprod", "neon", "scalar"]),
    ],
)
def test_the_core_is_right_on_arm_under_emulation(built, cpu, tables):
    need("qemu-aarch64")
    run("qemu-aarch64", "-cpu", cpu, built("arm") / "core_check", QUIET_CHILDREN, *tables)


@pytest.mark.parametrize(("name", "nm"), [("native", "nm"), ("arm", f"{ARM}nm")])
def test_a_kernel_file_gives_the_program_one_symbol(built, name, nm):
    """No code compiled for newer instructions can then stand in for another file's."""
    folder = built(name)
    need(nm)
    objects = sorted(folder.glob("CMakeFiles/core_check.dir/native/kernels_*.o"))
    assert len(objects) >= 3
    for path in objects:
        symbols = run(nm, "--defined-only", "--extern-only", path).splitlines()
        assert len(symbols) == 1 and path.name.partition(".")[0] in symbols[0], (path.name, symbols)
