"""What few bits cost: perplexity and KL divergence from fp32, ours and llama.cpp's: `python bench/quality.py`.

The text is read in windows; every token but a window's first is predicted. fp32 is torch on the dequantized weights of
the same file, so a 4-bit file's own loss is in none of these figures: they are what the arithmetic adds. For each
packing: perplexity over fp32's less 1, and the mean divergence KL(fp32 || packing) a token, both with a 95 % interval
over the windows. llama.cpp reads the file itself.
"""

import argparse
import json
import math
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from grpo.environment import ROOT, peers_python

from smallpress.engine.native_runner import NativeRunner
from smallpress.model.attention import Group, PackedCausal, TokenTree
from smallpress.run.progress import Progress
from smallpress.weights.load import load_transformer, open_model
from smallpress.weights.reference import resolve

SIDE = ROOT / "bench" / "quality" / "llama_cpp_side.py"
LIBRARY = Path(statistics.__file__).parent
TEXTS = [LIBRARY / name for name in ("argparse.py", "doctest.py", "inspect.py", "pydoc.py", "turtle.py", "typing.py")]
"""By default modules of Python's own library: code and English in about equal parts, and always at hand."""
Logits = Callable[[list[int]], np.ndarray]


def fp32(path: Path) -> Logits:
    model = load_transformer(path)

    @torch.inference_mode()
    def logits(ids: list[int]) -> np.ndarray:
        attend = PackedCausal(TokenTree((Group(len(ids)),)), window=model.config.attention.window)
        hidden = model(torch.tensor(ids), torch.arange(len(ids)), attend)
        return model.logits(hidden).numpy()

    return logits


def native(path: Path, packing: str, window: int) -> Logits:
    packing, _, cache = packing.partition("+")
    runner = NativeRunner.from_files(open_model(path), packing, 16, -(-window // 16), cache or "bfloat16")

    def logits(ids: list[int]) -> np.ndarray:
        n = np.arange(len(ids))
        runner.core.forward(np.array(ids), n, np.arange(runner.n_pages), np.zeros_like(n), n)
        return runner.core.logits()

    return logits


class LlamaCpp:
    """Its logits come through a file. `wide`: keys and values in fp32, weights in the file's own layout."""

    def __init__(self, path: Path, window: int, folder: Path, wide: bool = False):
        self.file = folder / "logits.f32"
        words = [peers_python(), SIDE, path, str(torch.get_num_threads()), str(window), self.file]
        words += ["wide"] * wide
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, ids: list[int]) -> np.ndarray:
        print(json.dumps(ids), file=self.process.stdin, flush=True)
        if self.process.stdout.readline() != "done\n":
            raise SystemExit("llama.cpp has ended; its last words are above")
        return np.fromfile(self.file, dtype=np.float32).reshape(len(ids), -1)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def log_softmax(logits: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(logits).log_softmax(-1)


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half of the 95 % interval."""
    return statistics.fmean(values), 1.96 * statistics.stdev(values) / math.sqrt(len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("text", type=Path, nargs="*", default=TEXTS, help="text files; as much is taken of each")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tokens", type=int, default=100_000, help="of all texts together")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument(
        "--packings",
        nargs="+",
        default=["stored", "int8", "int8+int8", "int4", "bfloat16"],
        help="of weights, and after a + of keys and values",
    )
    parser.add_argument("--no-peer", action="store_true")
    args = parser.parse_args()

    path = resolve(args.model)
    path = path if path.is_file() else next(path.glob("*.gguf"), path)
    tokenizer = open_model(path).tokenizer()
    windows: list[list[int]] = []
    for text in args.text:
        ids = tokenizer.encode(text.read_text(encoding="utf-8")[: 8 * args.tokens])
        n_windows = args.tokens // len(args.text) // args.window
        windows += [
            ids[i * args.window : (i + 1) * args.window] for i in range(min(n_windows, len(ids) // args.window))
        ]

    reference, nll = fp32(path), {"fp32": []}
    sides: dict[str, Logits] = {packing: native(path, packing, args.window) for packing in args.packings}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, Progress("windows", len(windows)) as progress:
        if not args.no_peer:
            sides["llama.cpp"] = LlamaCpp(path, args.window, Path(folder))
        divergence: dict[str, list[float]] = {name: [] for name in sides}
        nll |= {name: [] for name in sides}
        for ids in windows:
            wanted = torch.tensor(ids[1:])[:, None]
            exact = log_softmax(reference(ids))[:-1]
            nll["fp32"].append(-exact.gather(1, wanted).mean().item())
            for name, logits in sides.items():
                said = log_softmax(logits(ids))[:-1]
                nll[name].append(-said.gather(1, wanted).mean().item())
                divergence[name].append((exact.exp() * (exact - said)).sum(-1).mean().item())
            progress.advance()
    print(f"{path.name}, {sum(map(len, windows)):,} tokens in windows of {args.window}")
    print(f"fp32        perplexity {math.exp(statistics.fmean(nll['fp32'])):.3f}")
    for name in sides:
        mean, half = interval([ours - exact for ours, exact in zip(nll[name], nll["fp32"], strict=True)])
        far, half_far = interval(divergence[name])
        print(
            f"{name:10}  perplexity {100 * math.expm1(mean):+.2f} % ({100 * math.expm1(mean - half):+.2f} to"
            f" {100 * math.expm1(mean + half):+.2f})  KL {far:.5f} +- {half_far:.5f}"
        )


if __name__ == "__main__":
    main()
