"""The peers' venv and the model folder both sides read. Standard library only."""

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / "bench" / "peers.txt"
VARIABLE = "SMALLPRESS_PEERS"


def peers_python() -> Path:
    """The interpreter of the peers' venv: the one SMALLPRESS_PEERS names, else `.peers`, made when absent or outdated.

    Packages take about 1 GB and some minutes. A venv named by hand is used as it is.
    """
    if named := os.environ.get(VARIABLE):
        python = _python_of(Path(named))
        if not python.is_file():
            raise SystemExit(f"{VARIABLE} is {named}, which holds no Python; name a venv or unset it")
        return python
    folder = ROOT / ".peers"
    installed = folder / PINS.name  # the pins, copied last
    if not installed.is_file() or installed.read_bytes() != PINS.read_bytes():
        print(f"installing {PINS.relative_to(ROOT)} into {folder.relative_to(ROOT)}", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=not installed.is_file())
        command = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", str(PINS)]
        if subprocess.run([_python_of(folder), *command], check=False).returncode:
            raise SystemExit(f"the peers could not be installed; make a venv with {PINS} and name it in {VARIABLE}")
        installed.write_bytes(PINS.read_bytes())
    return _python_of(folder)


def _python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def model_folder(reference: str, python: Path, cache: Path) -> Path:
    """A Hugging Face folder of that model; transformers makes one out of a GGUF file, once, below `cache`."""
    from smallpress.run.errors import UserError
    from smallpress.weights.reference import resolve

    try:
        path = resolve(reference)
    except UserError as error:
        raise SystemExit(str(error)) from None
    if (path / "config.json").is_file():
        return path
    gguf = path if path.is_file() else next(path.glob("*.gguf"), path / "model.gguf")
    folder = cache / f"{gguf.stem}-hf"
    if not (folder / "complete").is_file():
        print(f"making {folder} out of {gguf}", file=sys.stderr, flush=True)
        script = Path(__file__).with_name("hf_folder.py")
        if subprocess.run([python, script, gguf, folder], check=False).returncode:
            raise SystemExit(f"{gguf} could not be made into a Hugging Face folder; give one with --model")
    return folder
