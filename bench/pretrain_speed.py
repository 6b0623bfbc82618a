"""Tokens a second of pretraining, whole steps: `python bench/pretrain_speed.py`, some minutes on two cores.

A dense decoder with grouped queries, and a sparse one with latent attention, on real text in each arithmetic; beside
the dense one the same shape as transformers has it, in torch alone: fp32, autocast to bf16, and both compiled. A step
is forward, backward, clipping and AdamW, fused in torch. In turns, medians; a ratio is the other's time over that of
the faster of ours in 8 bits.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import torch
from grpo.environment import ROOT
from pretrain.text import DEFAULT, make_corpus
from training8 import in_turns

from smallpress.corpus.shards import Corpus
from smallpress.model.sizes import multiply_adds, parameters
from smallpress.run.machine import this_machine
from smallpress.run.settings import settings_from
from smallpress.train.pretrain_run import open_pretrainer, settled
from smallpress.train.pretrain_settings import PretrainSettings
from smallpress.train.pretrainer import Pretrainer

DIM, INTER, HEADS, KV_HEADS, N_LAYERS = 1024, 2816, 16, 4, 8
DENSE = {
    "family": "llama", "dim": DIM, "n_layers": N_LAYERS, "tied_head": True,
    "attention": {"kind": "gqa", "n_heads": HEADS, "n_kv_heads": KV_HEADS, "head_dim": DIM // HEADS},
    "ffn": {"kind": "dense", "inter_dim": INTER},
}  # fmt: skip
SPARSE = {
    "dim": 512, "n_layers": 8,
    "attention": {
        "kind": "mla", "n_heads": 8, "q_lora_rank": 256, "kv_lora_rank": 128, "qk_nope_head_dim": 64,
        "qk_rope_head_dim": 32, "v_head_dim": 64,
    },
    "ffn": {
        "kind": "moe", "n_routed_experts": 8, "n_active_experts": 2, "n_shared_experts": 1, "moe_inter_dim": 512,
        "score": "sigmoid", "expert_bias": True, "routed_scale": 2.5, "dense_layers": [0], "dense": {"inter_dim": 1536},
    },
}  # fmt: skip
ARITHMETICS = {
    "float32": {"arithmetic": "float32"},
    "bfloat16": {"arithmetic": "bfloat16"},
    "int8, the rest float32": {"arithmetic": "int8", "dtype": "float32"},
    "int8, the rest bfloat16": {"arithmetic": "int8", "dtype": "bfloat16"},
}


def ours(shape: dict, corpus: Corpus, tokens: int, seq_len: int, how: dict) -> Pretrainer:
    given = {
        "corpus": str(corpus.folder), "steps": 1 << 20, "seq_len": seq_len, "batch_tokens": tokens, "lr": 1e-4,
        "micro_batch_tokens": tokens, "init_std": 0.02, "eval_tokens": seq_len,
        "shape": shape | {"max_seq_len": seq_len},
    }  # fmt: skip
    return open_pretrainer(settled(settings_from(PretrainSettings, given | how, "bench"), corpus), corpus)


def torchs(vocab: int, tokens: int, seq_len: int, autocast: bool, compiled: bool) -> Callable[[], object]:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab, hidden_size=DIM, intermediate_size=INTER, num_hidden_layers=N_LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, tie_word_embeddings=True, use_cache=False,
        max_position_embeddings=seq_len,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    run = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    rows = torch.randint(vocab, (tokens // seq_len, seq_len + 1))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
            logits = run(input_ids=rows[:, :-1]).logits
        torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def compare(title: str, sides: dict[str, Callable[[], object]], tokens: int, repeats: int) -> None:
    seconds = in_turns(sides, repeats)
    best = min((name for name in seconds if name.startswith("int8")), key=lambda name: seconds[name])
    print(f"{title}; {tokens} tokens a step, median of {repeats}; the best in 8 bits is {best}")
    for name, took in seconds.items():
        print(f"  {name:36} {tokens / took:7.0f} tokens/s  {took:6.2f} s a step  {took / seconds[best]:5.2f} times it")


def told(name: str, settings: PretrainSettings) -> str:
    sizes, n = parameters(settings.shape), multiply_adds(settings.shape, settings.seq_len / 2, absorbed=False)
    weights = f"{sizes.total / 1e6:.0f} million weights, {sizes.active / 1e6:.0f} active"
    return f"{name}: {weights}, {2 * n / 1e6:.0f} MFLOP a token forward"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["dense", "sparse"], help="dense, sparse; none: both")
    parser.add_argument("--tokens", type=int, default=2048, help="of a step")
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--alone", action="store_true", help="ours only")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M}, {this_machine().cpu}, {threads}")
    data = ROOT.parent / "shared" / "data"
    files = [data / name for name in DEFAULT]
    if missing := [str(file) for file in files if not file.exists()]:
        return print(f"skipped: {', '.join(missing)} is not there")
    with tempfile.TemporaryDirectory(prefix="smallpress-") as folder:
        corpus = make_corpus(Path(folder) / "corpus", files, options.vocab)
        for name in options.models:
            shape, size = {"dense": DENSE, "sparse": SPARSE}[name], (options.tokens, options.seq_len)
            trainers = {kind: ours(shape, corpus, *size, how) for kind, how in ARITHMETICS.items()}
            sides: dict[str, Callable[[], object]] = {kind: trainer.step for kind, trainer in trainers.items()}
            for autocast, compiled in product((False, True), repeat=2) if name == "dense" and not options.alone else ():
                kind = f"torch, {'autocast to bf16' if autocast else 'fp32'}{', compiled' * compiled}"
                sides[kind] = torchs(corpus.vocab_size, *size, autocast, compiled)
            compare(told(name, next(iter(trainers.values())).settings), sides, options.tokens, options.repeats)


if __name__ == "__main__":
    main()
