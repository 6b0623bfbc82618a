"""What an update of GRPO is made of: `python bench/update.py`, or a part of it: attention, backward.

attention: that of training, forward and backward, in the native core beside torch, by the shape of the batch. In turns,
medians of five.

backward: SmolLM2-135M on this repository's own text, cut into prompts and answers. For every way to compute linear
layers in 8 bits: the cosine of the gradient with fp32's, the mean change of a token's log-probability, and the time of
a micro-batch, forward and backward. In turns, medians of five.
"""

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from unittest.mock import patch

import torch
from grpo.environment import ROOT
from torch import Tensor
from training8 import in_turns

from smallpress.lowbit.linear8 import PLAIN, Arithmetic, use
from smallpress.lowbit.native_core import native_core
from smallpress.lowbit.product8 import SPAN, WHOLE_ROW, int8
from smallpress.model import attention
from smallpress.model.attention import Group, PackedCausal, TokenTree
from smallpress.rl.packing import MicroBatch, Trained, TrainedGroup, pack
from smallpress.rl.policy import logprobs_of
from smallpress.run.machine import this_machine
from smallpress.weights.load import load_transformer, open_model
from smallpress.weights.reference import resolve

TREES = {
    "4 prompts of 40 with 8 answers of 25 to 67, behind 110": TokenTree(
        tuple(Group(40, tuple(range(25 + g, 70, 6))[:8]) for g in range(4)), 110
    ),
    "8 sequences of 256": TokenTree(tuple(Group(256) for _ in range(8))),
    "one of 2,048": TokenTree((Group(2048),)),
}
HEADS, KV_HEADS, DIM = 9, 3, 64

ROWS, TILES = int8(WHOLE_ROW), int8(SPAN)
WAYS = {
    "fp32": PLAIN,
    "both gradients, a scale a row": Arithmetic(None, ROWS, ROWS),
    "both gradients, a scale for 128": Arithmetic(None, TILES, TILES),
    "of x for 128, of w a row (backward = int8)": Arithmetic(None, TILES, ROWS),
    "all three, a scale for 128": Arithmetic.all_in(TILES),
    "all three, a scale a row": Arithmetic.all_in(ROWS),
}


def attend(tree: PackedCausal, arrays: list[Tensor], natively: bool) -> None:
    """Forward and backward; the last of the arrays is the output's gradient."""
    with patch.object(attention, "runs_natively", lambda *_: natively):
        torch.autograd.grad(tree(0, *arrays[:3]), arrays[:3], arrays[3])


def compare_attention(repeats: int) -> None:
    if native_core() is None:
        return print("there is no native core: torch attends")
    for name, tree in TREES.items():
        arrays = [torch.randn(tree.n_tokens, heads, DIM, requires_grad=True) for heads in (HEADS, KV_HEADS, KV_HEADS)]
        arrays.append(torch.randn(tree.n_tokens, HEADS, DIM))
        sides = {side: partial(attend, PackedCausal(tree), arrays, side == "core") for side in ("core", "torch")}
        seconds = in_turns(sides, repeats)
        print(
            f"  {name}: {tree.n_tokens} tokens {1e3 * seconds['core']:.1f} ms, torch {1e3 * seconds['torch']:.1f}: "
            f"{seconds['torch'] / seconds['core']:.2f}"
        )


def micro_batch(encode: Callable[[str], list[int]]) -> MicroBatch:
    """Four prompts with eight answers each, half of them good."""
    ids = encode("\n".join(file.read_text(encoding="utf-8") for file in sorted(ROOT.glob("docs/*.md"))))
    runs, groups = [tuple(ids[at : at + 40]) for at in range(0, 40 * 9 * 4, 40)], []
    for prompt, *answers in (runs[at : at + 9] for at in range(0, len(runs), 9)):
        rollouts = [Trained(answer, (-1.0,) * 40, (-1.0) ** i, 1e-3) for i, answer in enumerate(answers)]
        groups.append(TrainedGroup(prompt, tuple(rollouts)))
    (one,) = pack(groups, 1 << 20)
    return one


def compare_backward(name: str, repeats: int) -> None:
    files = open_model(resolve(name))
    model, batch = load_transformer(files, torch.float32), micro_batch(files.tokenizer().encode)

    def learn(arithmetic: Arithmetic) -> tuple[Tensor, Tensor]:
        use(arithmetic, model.layers)
        model.zero_grad()
        logprobs_P, _ = logprobs_of(model, batch, 1.0)
        (-logprobs_P * batch.advantages_P * batch.weights_P).sum().backward()
        return logprobs_P.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])

    wanted, direction = learn(PLAIN)
    direction = direction.double()  # sums of so many squares
    found = {}
    for way, arithmetic in WAYS.items():
        logprobs_P, gradient = learn(arithmetic)
        found[way] = torch.cosine_similarity(gradient.double(), direction, 0), (logprobs_P - wanted).abs().mean()
    seconds = in_turns({way: partial(learn, arithmetic) for way, arithmetic in WAYS.items()}, repeats)
    print(f"  {len(batch.ids_N)} tokens, {len(batch.targets_P)} of them learned")
    for way, (cosine, change) in found.items():
        print(f"  {way:44} cosine {cosine:.4f}, log-probability {change:.3f}, {seconds[way]:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["attention", "backward"], help="attention, backward; none: both")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(datetime.now(UTC).isoformat(timespec="seconds"), this_machine().cpu, torch.get_num_threads(), "threads")
    if "attention" in options.parts:
        compare_attention(options.repeats)
    if "backward" in options.parts:
        compare_backward(options.model, options.repeats)


if __name__ == "__main__":
    main()
