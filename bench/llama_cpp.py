"""Decode and prefill beside llama.cpp on the same file, in one run: `python bench/llama_cpp.py [MODEL ...]`.

`smallpress bench --peer llama.cpp` for each model given, by default SmolLM2-135M as Q8_0 and as Q4_0.

llama.cpp built by GCC 12 or older for a processor with AMX ends with a segmentation fault: its tile shapes are taken
for dead stores. It needs `__asm__ volatile("" : : "r"(&tc) : "memory");` before `_tile_loadconfig(&tc)` in
ggml-cpu/amx/mmq.cpp; name such a build's venv in SMALLPRESS_PEERS.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from grpo.environment import peers_python

FORMATS = ("q8_0", "q4_0")


def smallpress(*words: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "smallpress.cli.main", *map(str, words)], check=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        models: list[str | Path] = list(sys.argv[1:])
        if not models:
            models = [Path(folder) / f"{name}.gguf" for name in FORMATS]
            for name, path in zip(FORMATS, models, strict=True):
                smallpress("convert", "smollm2-135m", path, "--to", name)
        for model in models:
            print(f"\n{model}", flush=True)
            smallpress("bench", model, "--peer", "llama.cpp", "--peer-python", peers_python())


if __name__ == "__main__":
    main()
