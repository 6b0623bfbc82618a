"""Gemma 3 270M beside llama.cpp: `python bench/gemma.py`, after `smallpress pull gemma-3-270m`.

Greedy text: 64 tokens for each of ten prompts, here in fp32 on the file's numbers. llama.cpp is then given prompt and
text and says the likeliest token after each, of the file itself and of the same numbers in an F32 file. For each
prompt: the first token it would have chosen otherwise, and how far apart the two best logits stood there. Where the
file is F32 only a tie can part them; of the file itself llama.cpp rounds activations to 8 bits.

Perplexity of both on the same text, in windows. With --speed, decode and prefill beside each other as well, where the
native core runs the model.
"""

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from grpo.environment import peers_python
from quality import TEXTS, LlamaCpp, fp32, log_softmax

from smallpress.cli.open_engine import open_engine
from smallpress.engine.request import SamplingParams
from smallpress.run.errors import UserError
from smallpress.weights.load import open_model
from smallpress.weights.reference import resolve

MODEL = "gemma-3-270m"
PROMPTS = (
    "The capital of France is",
    "Once upon a time there was a",
    "Water boils at",
    "def fibonacci(n):\n",
    "The three laws of motion say that",
    "Q: How many legs has a spider?\nA:",
    "In 1969 two people walked on",
    "Ingredients: flour, eggs, milk and",
    "Die Hauptstadt von Deutschland ist",
    "1, 2, 3, 5, 8, 13,",
)
N_NEW = 64


def greedy(path: Path) -> list[tuple[list[int], int]]:
    """(ids of prompt and text, where the text begins) of each prompt."""
    files = open_model(path)
    tokenizer = files.tokenizer()
    assert tokenizer.bos_id is not None
    prompts = [[tokenizer.bos_id, *tokenizer.encode(text)] for text in PROMPTS]
    longest = max(map(len, prompts)) + N_NEW
    engine = open_engine(files, "float32", len(prompts), longest)
    params = SamplingParams(max_tokens=N_NEW, temperature=0.0)
    done = engine.generate(prompts, params)
    for text, completion in zip(PROMPTS, done, strict=True):
        print(repr(text + tokenizer.decode(completion.ids)))
    return [(prompt + list(completion.ids), len(prompt)) for prompt, completion in zip(prompts, done, strict=True)]


def windows(path: Path, n_tokens: int, length: int) -> list[list[int]]:
    tokenizer = open_model(path).tokenizer()
    assert tokenizer.bos_id is not None
    each = max(1, n_tokens // length // len(TEXTS))
    found = []
    for text in TEXTS:
        ids = tokenizer.encode(text.read_text(encoding="utf-8")[: 8 * each * length])
        found += [[tokenizer.bos_id, *ids[i * length : (i + 1) * length - 1]] for i in range(each)]
    return found


class Ours:
    """The best two logits after each token of each text, and the nats a token of each window: no logits are kept."""

    def __init__(self, path: Path, texts: list[list[int]], pieces: list[list[int]]):
        logits = fp32(path)
        self.best = [np.sort(np.partition(logits(ids), -2)[:, -2:]) for ids in texts]
        self.nats = [nats(logits(ids), ids) for ids in pieces]


def nats(logits: np.ndarray, ids: list[int]) -> float:
    wanted = torch.tensor(ids[1:])[:, None]
    return -log_softmax(logits)[:-1].gather(1, wanted).mean().item()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=3072, help="of the text whose perplexity is taken")
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--speed", action="store_true", help="beside the rest")
    args = parser.parse_args()
    try:
        path = resolve(MODEL)
    except UserError as error:
        print(f"left out: {error}")
        return 0
    torch.set_num_threads(1)
    sys.stdout.reconfigure(line_buffering=True)
    texts, pieces = greedy(path), windows(path, args.tokens, args.window)
    ours = Ours(path, [ids for ids, _ in texts], pieces)
    perplexity = math.exp(statistics.fmean(ours.nats))
    print(f"perplexity of {len(pieces)} windows of {args.window}: {perplexity:.3f} in fp32 here")
    room = max(args.window, *(len(ids) for ids, _ in texts))
    with tempfile.TemporaryDirectory() as folder:
        wide = Path(folder) / "f32.gguf"
        subprocess.run([sys.executable, "-m", "smallpress.cli.main", "convert", path, wide, "--to", "f32"], check=True)
        for name, file in (("F32 of the same numbers", wide), ("the file itself", path)):
            peer = LlamaCpp(file, room, Path(folder), wide=True)
            agree(name, peer, texts, ours.best)
            theirs = math.exp(statistics.fmean(nats(peer(ids), ids) for ids in pieces))
            peer.close()
            print(
                f"llama.cpp, {name}: perplexity {theirs:.3f}, {100 * (theirs / perplexity - 1):+.2f} % from fp32 here"
            )
    if args.speed:
        words = ["bench", MODEL, "--peer", "llama.cpp", "--peer-python", str(peers_python())]
        subprocess.run([sys.executable, "-m", "smallpress", *words], check=True)
    return 0


def agree(name: str, peer: LlamaCpp, texts: list[tuple[list[int], int]], best: list[np.ndarray]) -> None:
    print(f"llama.cpp, {name}: tokens that agree")
    for (ids, begin), two in zip(texts, best, strict=True):
        said = peer(ids)[begin - 1 : -1].argmax(-1).tolist()
        first = next((i for i, (a, b) in enumerate(zip(said, ids[begin:], strict=True)) if a != b), None)
        if first is None:
            print(f"  all {len(said)}")
        else:
            low, high = two[begin - 1 + first]
            print(f"  {first} of {len(said)}; there the two best were {high - low:.4f} apart")


if __name__ == "__main__":
    sys.exit(main())
