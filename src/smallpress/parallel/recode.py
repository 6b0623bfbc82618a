"""8-bit moments of a checkpoint, for another number of processes than wrote it.

Codes are stored by rows, which any process can read; their scales belong to blocks that run through one writer's rows.
So a process that takes up other rows reads the codes of these and the scales of all writers, and codes the values anew:
each is then off by half a step of its block at most, and hardly any where the new blocks are old ones.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from smallpress.lowbit.dynamic_map import QUANT_BLOCK, Codes, dynamic_map, quantize
from smallpress.optim.adamw_step import FIRST, SECOND
from smallpress.optim.master import MasterWeights


def cuts(names: Iterable[str], moment: str) -> list[str]:
    """Among `names`, the scales of one moment that its writers left, in the order of their rows.

    >>> cuts(["s/w/1-of-2", "s/v", "s/w/0-of-2", "s/w/x"], "s/w"), cuts(["s/w/1-of-2", "s/v"], "s/v")
    (['s/w/0-of-2', 's/w/1-of-2'], ['s/v'])
    """
    found = {}
    for name in names:
        place, _, n = name.removeprefix(f"{moment}/").partition("-of-")
        if name == moment:
            found[name] = 0
        elif name.startswith(f"{moment}/") and place.isdigit() and n.isdigit():
            found[name] = int(place)
    return sorted(found, key=lambda name: found[name])


def code_anew(tensors: dict[str, Tensor], weights: MasterWeights) -> None:
    """In `tensors`, as read from a checkpoint, replace the scales of other processes by those of this one's rows."""
    for weight in weights.master:
        for moment, signed in ((FIRST, True), (SECOND, False)):
            codes_at, scales_at = f"adamw/{moment}/{weight}", f"adamw/{moment}_scales/{weight}"
            found = cuts(tensors, scales_at)
            if found and found != [scales_at]:
                scales = [tensors.pop(name) for name in found]
                codes = recoded(tensors[codes_at], *weights.rows(weight), scales, signed)
                tensors[codes_at], tensors[scales_at] = codes.codes, codes.scales


def recoded(codes: Tensor, first: int, n_rows: int, scales: Sequence[Tensor], signed: bool) -> Codes:
    """`codes`, rows from the `first` on of a moment of `n_rows`, whose writers left `scales`, each of its share.

    >>> rows = torch.tensor([[255], [127], [255]], dtype=torch.uint8)
    >>> recoded(rows, 1, 4, [torch.tensor([3.0]), torch.tensor([2.0])], signed=False).scales.tolist()
    [3.0]
    """
    width, n = codes[0].numel(), codes.numel()
    begin, scale_N, at = first * width, torch.empty(n), 0
    for rows, scales_B in zip(torch.arange(n_rows).chunk(len(scales)), scales, strict=False):
        lo, hi = max(begin, at), min(begin + n, at + len(rows) * width)
        if lo < hi:
            scale_N[lo - begin : hi - begin] = scales_B[torch.arange(lo - at, hi - at) // QUANT_BLOCK]
        at += len(rows) * width
    values = dynamic_map(signed)[codes.flatten().long()] * scale_N
    return quantize(values.view(codes.shape), signed)
