"""Do our GGUF files mean to llama.cpp what they mean here? `python bench/gguf.py`.

For each architecture a small random model is written in each format from a Hugging Face folder. Here the file's numbers
are computed in fp32; llama.cpp computes them its own way, in fp32 where the file is F32 and with activations rounded
to 8 or 16 bits elsewhere. Reported for each file: the largest difference of a logit beside their spread, at most tokens
(the median) and at all, and how many tokens of a greedy text agree; where they part, how far apart the two best stood.
A router turns a small difference into another expert, so that single tokens may be far apart but in an F32 file. Exit
code 1 where that differs anywhere by more than fp32 explains, or another file at most tokens by more than its format.
"""

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from grpo.environment import ROOT
from quality import LlamaCpp, fp32

from smallpress.weights.export import WeightsOnDemand
from smallpress.weights.gguf_export import gguf_contents
from smallpress.weights.gguf_writer import write_gguf
from smallpress.weights.load import open_model

UNIT, N_PROMPT, N_NEW = 256, 24, 40
TARGETS = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_k", "q6_k")
ALLOWED = {"f32": 2e-4, "f16": 0.02, "bf16": 0.15}
"""Of the logits' spread; llama.cpp rounds activations to the file's format, to 8 bits where it has fewer."""
ALLOWED_IN_8_BITS = 0.35


def load_families():
    path = ROOT / "tests/unit/weights/families.py"
    spec = importlib.util.spec_from_file_location("families", path)
    module = sys.modules["families"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def greedy(path: Path, prompt: list[int], n_new: int) -> tuple[list[int], np.ndarray]:
    """Prompt and text, and the logits after each of its tokens [n, V]."""
    logits, ids = fp32(path), list(prompt)
    for _ in range(n_new):
        ids.append(int(logits(ids)[-1].argmax()))
    return ids, logits(ids)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="of architectures; all where none is named")
    parser.add_argument("--targets", nargs="+", default=TARGETS, choices=TARGETS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    families, bad = load_families(), 0
    prompt = np.random.default_rng(0).integers(0, 256, N_PROMPT).tolist()
    with tempfile.TemporaryDirectory() as folder:
        for name, config in families.small_configs(UNIT).items():
            if args.names and name not in args.names:
                continue
            families.write_folder(Path(folder) / name, config)
            files = open_model(Path(folder) / name)
            for target in args.targets:
                path = Path(folder) / f"{name}.gguf"
                write_gguf(path, *gguf_contents(WeightsOnDemand(files), files, target), replace=True)
                ids, ours = greedy(path, prompt, N_NEW)
                peer = LlamaCpp(path, len(ids), Path(folder), wide=True)
                theirs = peer(ids)
                peer.close()
                bad += report(name, target, ids, ours, theirs)
    return 1 if bad else 0


def report(name: str, target: str, ids: list[int], ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether they differ by more than is allowed."""
    far = np.abs(ours - theirs).max(-1) / ours.std()
    median, largest = float(np.median(far)), float(far.max())
    said = [int(row.argmax()) for row in theirs[N_PROMPT - 1 : -1]]
    agree = next((i for i, (a, b) in enumerate(zip(said, ids[N_PROMPT:], strict=True)) if a != b), len(said))
    margin = ""
    if agree < len(said):
        best = np.sort(ours[N_PROMPT - 1 + agree])[-2:]
        margin = f", then {(best[1] - best[0]) / ours.std():.2g} between the two best"
    bad = not (largest if target == "f32" else median) <= ALLOWED.get(target, ALLOWED_IN_8_BITS)
    off = f"logits off by {median:.1e} of their spread, at most {largest:.1e}"
    print(f"{name:14} {target:5} {off}; {agree} of {len(said)} tokens{margin}", flush=True)
    return bad


if __name__ == "__main__":
    sys.exit(main())
