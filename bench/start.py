"""From the start of the process to the first word: `python bench/start.py`, after `smallpress pull smollm2-135m`.

Makes a plain install of the checkout (`pip install .`, no torch) in a venv of its own, or takes the one named. Medians,
with Python that only imports numpy beside it in turns, which tells how busy the machine is; then the peak memory of
the process that opens the model.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from statistics import median

from grpo.environment import ROOT

PEAK = """
import resource, sys
from smallpress.engine.native_runner import NativeRunner
from smallpress.weights.load import open_model
from smallpress.weights.reference import resolve
NativeRunner.from_files(open_model(resolve(sys.argv[1], True)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def seconds_to_first_byte(command: list[str]) -> float:
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        if not process.stdout.read(1):
            raise SystemExit(f"{command[0]} says nothing")
        found = time.perf_counter() - began
        process.stdout.read()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--python", type=Path, help="of a venv with smallpress; without it one is made")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python = asked.python
        if python is None:
            venv.create(folder, with_pip=True)
            python = Path(folder) / "bin/python"
            subprocess.run([python, "-m", "pip", "install", "--quiet", str(ROOT)], check=True)
        sides = {
            "first word": [str(python.with_name("smallpress")), "run", asked.model, "Hi", "--max-tokens", "4"],
            "import numpy": [str(python), "-c", "import numpy; print(1)"],
        }
        laps: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(asked.repeats + 1):  # The first brings the files into memory.
            for name, command in sides.items():
                laps[name].append(seconds_to_first_byte(command))
        for name, seconds in laps.items():
            print(f"{name:13} {median(seconds[1:]):.3f} s, best {min(seconds[1:]):.3f}")
        peak = subprocess.run([python, "-c", PEAK, asked.model], check=True, capture_output=True, text=True, cwd=folder)
        print(f"peak memory   {int(peak.stdout) >> (20 if sys.platform == 'darwin' else 10)} MB, the model opened")


if __name__ == "__main__":
    main()
