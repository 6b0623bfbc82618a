"""Decode and prefill beside llama.cpp on the same file, in one run: `python bench/llama_cpp.py [MODEL ...]`.

`smallpress bench --peer llama.cpp` for each model given, by default SmolLM2-135M's Q4_1 file.
"""

import subprocess
import sys

from grpo.environment import peers_python


def main() -> None:
    for model in sys.argv[1:] or ["smollm2-135m"]:
        print(f"\n{model}", flush=True)
        words = ["bench", model, "--peer", "llama.cpp", "--peer-python", str(peers_python())]
        subprocess.run([sys.executable, "-m", "smallpress.cli.main", *words], check=True)


if __name__ == "__main__":
    main()
