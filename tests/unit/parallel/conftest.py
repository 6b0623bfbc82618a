"""Trainings of tiny models that any number of processes may share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from smallpress.model.attention import Group, PackedCausal, TokenTree
from smallpress.model.config import GQA, Dense, ModelConfig, MoE
from smallpress.model.token_logprobs import token_logprobs
from smallpress.model.transformer import Transformer, init_weights
from smallpress.parallel.passes import Passes
from smallpress.parallel.ranks import ALONE, Ranks
from smallpress.parallel.weights import spread

EXPERTS = MoE(
    n_routed_experts=8, n_active_experts=2, n_shared_experts=1, moe_inter_dim=16, score="sigmoid", expert_bias=True,
    dense_layers=(0,), dense=Dense(inter_dim=48),
)  # fmt: skip
N_ROWS, LEN = 4, 24


def config(sparse: bool = False, tied: bool = False, inter_dim: int = 50) -> ModelConfig:
    """About 50,000 weights; no count of rows is a multiple of 4."""
    return ModelConfig(
        family="llama",
        vocab_size=97,
        dim=30,
        n_layers=4,
        attention=GQA(n_heads=3, n_kv_heads=1, head_dim=10),
        ffn=EXPERTS if sparse else Dense(inter_dim=inter_dim),
        norm_eps=1e-5,
        rope_theta=1e4,
        max_seq_len=64,
        tied_head=tied,
    )


@dataclass(frozen=True)
class Row:
    """A sequence of which all but the first `unseen` tokens are learned."""

    ids: Tensor
    unseen: int

    @property
    def ids_N(self) -> Tensor:
        return self.ids[:-1]

    @property
    def positions_N(self) -> Tensor:
        return torch.arange(LEN)

    @property
    def attend(self) -> PackedCausal:
        return PackedCausal(TokenTree((Group(LEN),)))

    @property
    def n_trained(self) -> int:
        return LEN - self.unseen

    def loss(self, hidden_NM: Tensor, head_VM: Tensor, n_trained: float) -> Tensor:
        rows = slice(self.unseen, None)
        return -token_logprobs(hidden_NM[rows], head_VM, self.ids[1:][rows])[0].sum() / n_trained


def rows() -> list[Row]:
    """Unequal counts of trained tokens: the later the row, the fewer."""
    ids = torch.randint(0, 97, (N_ROWS, LEN + 1), generator=torch.Generator().manual_seed(0))
    return [Row(row, 5 * i) for i, row in enumerate(ids)]


class Training:
    """A tiny model that learns four rows by heart, over any `ranks`."""

    def __init__(self, ranks: Ranks, model: ModelConfig, dtype: torch.dtype = torch.float32, **options: Any):
        whole = Transformer(model)
        init_weights(whole, std=0.1, seed=0)
        self.ranks, self.weights = ranks, spread(whole, dtype, ranks, weight_decay=0.1, **options)
        self.passes, self.n_done = Passes(self.weights, ranks), 0

    def step(self) -> float:
        """The loss over all rows, as every process knows it."""
        mine = self.ranks.mine(rows())
        (n_trained,) = self.ranks.counts(sum(row.n_trained for row in mine))

        def loss_of(hidden_NM: Tensor, i: int) -> Tensor:
            return mine[i].loss(hidden_NM, self.weights.model.head_weight, n_trained)

        loss = self.passes.learn(mine, loss_of)
        self.norm = self.weights.grad_norm()
        self.weights.step(lr=3e-3, max_norm=1.0)
        self.n_done += 1
        self.weights.end_step(self.n_done)
        return self.ranks.sums(loss)[0]

    def curve(self, n_steps: int) -> list[float]:
        return [self.step() for _ in range(n_steps)]

    def tensors(self) -> dict[str, Tensor]:
        return dict(self.weights.tensors())

    def state(self) -> dict[str, Any]:
        return {"n_done": self.n_done}

    def restore(self, tensors: dict[str, Tensor], state: Any) -> None:
        self.weights.restore(tensors)
        self.n_done = state["n_done"]


@pytest.fixture(scope="session", name="training")
def _training() -> Callable[..., Training]:
    """Begins a training over ranks, None: one process."""
    return lambda ranks, model, **options: Training(ranks or ALONE, model, **options)


@pytest.fixture(scope="session")
def config_of_kind() -> dict[str, ModelConfig]:
    return {"dense": config(), "tied": config(tied=True), "sparse": config(sparse=True), "wide": config(inter_dim=150)}
