"""Samples of ids alone, and a trainer of the tiny model over them."""

from collections.abc import Callable

import pytest
import torch

from smallpress.model.low_rank import adapt, adapter_scale
from smallpress.optim.master import MasterWeights
from smallpress.train.objective import Likelihood
from smallpress.train.samples import Sample
from smallpress.train.settings import TrainSettings
from smallpress.train.trainer import Trainer


def sample(*ids: int, asked: int = 1) -> Sample:
    """The first `asked` tokens are the prompt."""
    return Sample(tuple(ids), tuple(i >= asked for i in range(len(ids))))


@pytest.fixture
def samples() -> list[Sample]:
    """Twenty that begin alike and go on as a rule says: each token is the one before it plus the second."""
    return [sample(1, 2, k, *(2 + (k * n) % 29 for n in range(1, 4 + k % 5)), asked=3) for k in range(2, 22)]


@pytest.fixture
def make_trainer(tiny_model, samples) -> Callable[..., Trainer]:
    def make(model_seed: int = 0, dtype: torch.dtype = torch.float32, lora: dict | None = None, **given) -> Trainer:
        chosen = {"model": "tiny", "lr": 1e-2, "warmup": 1, "samples_per_step": 4, "micro_batch_tokens": 64}
        settings = TrainSettings(**(chosen | {"steps": 12} | given), lora=lora)
        model = tiny_model(seed=model_seed)
        if settings.lora is not None:
            of = settings.lora
            adapt(model, of.targets, of.rank, adapter_scale(of.rank, of.alpha, of.rank_stabilized), of.base)
        model.recompute = settings.recompute
        weights = MasterWeights(model, dtype, optimizer=settings.optimizer, take=True)
        return Trainer(settings, weights, Likelihood(settings.micro_batch_tokens), samples[2:], samples[:2])

    return make
