"""smallpress doctor"""

import json as json_format
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import smallpress
from smallpress.cli.table import table
from smallpress.run.errors import UserError
from smallpress.run.home import store_dir
from smallpress.run.machine import this_machine
from smallpress.weights.listing import list_models


@dataclass(frozen=True, slots=True)
class Finding:
    """`remedy` is empty when all is well; `needed`: without it nothing works, else only a part of the verbs."""

    subject: str
    found: str
    remedy: str = ""
    needed: bool = True


def doctor(*, json: Annotated[bool, Parameter(help="Print JSON.")] = False) -> None:
    """Say what this machine can do, and what is missing.

    Exits with 2 when something is missing that every verb needs.
    """
    findings = examine()
    if json:
        print(json_format.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print(table([row for finding in findings for row in _rows(finding)]))
    for finding in findings:
        if finding.needed and finding.remedy:
            raise UserError(f"{finding.subject}: {finding.found}", finding.remedy)


def _rows(finding: Finding) -> list[list[str]]:
    row = [finding.subject, finding.found]
    return [row, ["", f"-> {finding.remedy}"]] if finding.remedy else [row]


def examine() -> list[Finding]:
    machine = this_machine()
    memory = f"{machine.memory_free / 1e9:.1f} of {machine.memory / 1e9:.1f} GB free" if machine.memory else "unknown"
    return [
        Finding("smallpress", smallpress.__version__),
        Finding("python", f"{platform.python_implementation()} {platform.python_version()}"),
        _torch(),
        _native_core(),
        Finding("system", machine.system),
        Finding("processor", f"{machine.cpu}, {machine.cores} cores"),
        Finding("instructions", " ".join(machine.cpu_features) or "none known"),
        Finding("memory", memory),
        *_store(),
    ]


def _torch() -> Finding:
    """Imported, not only looked up: an installed torch that lacks a library is as good as none."""
    try:
        import torch
    except ModuleNotFoundError:
        return Finding("torch", "not installed", "to train: pip install 'smallpress[train]'", needed=False)
    except (ImportError, OSError) as error:
        return Finding("torch", f"broken ({error})", "to train: install torch again", needed=False)
    if torch.cuda.is_available():
        return Finding("torch", f"{torch.__version__}, {torch.cuda.get_device_name()}")
    return Finding("torch", f"{torch.__version__}, {torch.get_num_threads()} threads, no GPU")


def _native_core() -> Finding:
    try:
        from smallpress import _native
    except ImportError as error:
        remedy = "for speed: install a C++ compiler and Python's headers, then smallpress again"
        return Finding("native core", f"none ({error})", remedy, needed=False)
    best = _native.best_kernels()
    if best == "scalar":
        return Finding("native core", "plain C++: it has no kernels for this processor's instructions")
    return Finding("native core", f"kernels for {best}")


def _store() -> list[Finding]:
    try:
        store = store_dir()
        models = list_models(store)
    except UserError as error:
        return [Finding("store", error.message, error.remedy)]
    except OSError as error:
        return [Finding("store", f"{error.filename}: {error.strerror}", "choose another: SMALLPRESS_HOME")]
    good = [model for model in models if not model.problem]
    count = f"{len(good)} pulled" if good else "none pulled"
    findings = [_store_room(store), Finding("models", count, "" if good else "smallpress ls shows some", needed=False)]
    for model in models:
        if model.problem:
            findings.append(Finding(model.name, model.problem, f"smallpress pull {model.name}", needed=False))
    return findings


def _store_room(store: Path) -> Finding:
    """Whether models can be put there, judged by the nearest folder above that exists."""
    above = next(folder for folder in (store, *store.parents) if folder.exists())
    if not above.is_dir():
        return Finding("store", f"{above} is a file", "choose another: SMALLPRESS_HOME")
    if not os.access(above, os.W_OK | os.X_OK):
        return Finding("store", f"{above} cannot be written", "choose another: SMALLPRESS_HOME")
    return Finding("store", f"{store}, {shutil.disk_usage(above).free / 1e9:.1f} GB free")
