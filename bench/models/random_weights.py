"""Weights for a model that there is no file of: made when they are asked for, so that one at a time is in fp32."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from smallpress.model.config import ModelConfig
from smallpress.model.shapes import tensor_shapes


class RandomWeights(Mapping[str, NDArray[np.float32]]):
    """By the names of `Transformer.named_parameters()`: normal, matrices with rows of about unit length, vectors around
    1."""

    def __init__(self, config: ModelConfig):
        self.shapes = tensor_shapes(config)

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        shape = self.shapes[name]
        values = np.random.default_rng(list(name.encode())).standard_normal(shape, dtype=np.float32)
        return 1 + values / 8 if len(shape) == 1 else values / np.float32(shape[-1] ** 0.5)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)
