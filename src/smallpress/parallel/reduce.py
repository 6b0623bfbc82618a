"""Sums over processes in 4, 2 or 1 byte a number, for links of different speed; what is sent is counted.

In 8 bits (block-wise as in arXiv 1511.04561 and 2110.02861): QUANT_BLOCK numbers share an fp32 scale max|x| / 127. Each
process adds up one n-th of the numbers, which all others send it in codes, and sends back its sum in codes:

    bytes sent by each = 2 (n - 1) / n * (1 + 4 / 256) a number, where a ring in fp32 sends 2 (n - 1) / n * 4

so 25.4 % of them. Sums are taken in the order of ranks, and every process, the adding one too, goes on with the sum as
it was sent: all end with equal bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from smallpress.lowbit.product8 import encode
from smallpress.parallel.settings import Reduce

QUANT_BLOCK = 256
BUCKET = 1 << 22
"""Numbers that travel together: enough to fill a link, 16 MB at most held beside the gradients."""


@dataclass
class Traffic:
    """Bytes this process has sent, as the algorithm calls for (a ring for fp32 and bf16)."""

    n_bytes: int = 0


@torch.no_grad()
def all_reduce(tensors: Sequence[Tensor], group: dist.ProcessGroup, reduce: Reduce, traffic: Traffic) -> None:
    """Replace each fp32 tensor by its sum over `group`; all processes give the same shapes in the same order."""
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        _SUMS[reduce](flat, group, traffic)
        for tensor, piece in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
            tensor.copy_(piece.view_as(tensor))


def _sum_float32(flat: Tensor, group: dist.ProcessGroup, traffic: Traffic) -> None:
    dist.all_reduce(flat, group=group)
    traffic.n_bytes += _ring_bytes(flat.numel(), 4, group)


def _sum_bfloat16(flat: Tensor, group: dist.ProcessGroup, traffic: Traffic) -> None:
    narrow = flat.bfloat16()
    dist.all_reduce(narrow, group=group)
    flat.copy_(narrow)
    traffic.n_bytes += _ring_bytes(flat.numel(), 2, group)


def _sum_int8(flat: Tensor, group: dist.ProcessGroup, traffic: Traffic) -> None:
    n = dist.get_world_size(group)
    per_rank = -(-flat.numel() // (n * QUANT_BLOCK)) * QUANT_BLOCK
    padded = torch.nn.functional.pad(flat, (0, n * per_rank - flat.numel()))
    sent = torch.stack([_packed(piece) for piece in padded.view(n, per_rank)])
    got = torch.empty_like(sent)
    dist.all_to_all_single(got, sent, group=group)
    total = torch.stack([_unpacked(row, per_rank) for row in got]).sum(0)
    result = _packed(total)
    results = [torch.empty_like(result) for _ in range(n)]
    dist.all_gather(results, result, group=group)
    sums = torch.cat([_unpacked(row, per_rank) for row in results])
    flat.copy_(sums[: flat.numel()])
    traffic.n_bytes += 2 * (n - 1) * len(result)


_SUMS = {"float32": _sum_float32, "bfloat16": _sum_bfloat16, "int8": _sum_int8}


def _packed(numbers: Tensor) -> Tensor:
    """uint8: the codes of whole blocks, then their scales. A block that is not finite comes back as NaN.

    >>> packed = _packed(torch.full((256,), -2.0))
    >>> len(packed), _unpacked(packed, 256)[0].item()
    (260, -2.0)
    """
    coded = encode(numbers[None], "int8", QUANT_BLOCK, in_blocks=False)
    codes = coded.codes[0].nan_to_num().to(torch.int8)
    return torch.cat([codes.view(torch.uint8), coded.scales[0].contiguous().view(torch.uint8)])


def _unpacked(packed: Tensor, n: int) -> Tensor:
    scales = packed[n:].clone().view(torch.float32)
    return (packed[:n].view(torch.int8).view(-1, QUANT_BLOCK).float() * scales[:, None]).view(-1)


def _buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    buckets: list[list[Tensor]] = []
    room = 0
    for tensor in tensors:
        if tensor.numel() > room:
            buckets.append([])
            room = BUCKET
        buckets[-1].append(tensor)
        room -= tensor.numel()
    return buckets


def _ring_bytes(n_numbers: int, n_bytes: int, group: dist.ProcessGroup) -> int:
    n = dist.get_world_size(group)
    return 2 * (n - 1) * -(-n_numbers // n) * n_bytes
