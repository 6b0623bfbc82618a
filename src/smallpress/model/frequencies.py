"""How fast the pairs of a rotary embedding turn, by its scaling's formula. Plain numpy: every runner asks here."""

import math

import numpy as np
from numpy.typing import NDArray

from smallpress.model.config import MLA, DynamicNTK, FixedNTK, Linear, Llama3, ModelConfig, RopeScaling, Yarn


def frequencies(dim: int, theta: float, scaling: RopeScaling | None = None) -> NDArray[np.float64]:
    """[dim / 2], radians a position: theta^(-2i / dim), scaled.

    Those of `DynamicNTK` within its original length; beyond it `ntk_theta` gives the base of each position.

    >>> frequencies(4, 100.0, Linear(factor=2.0)).tolist()
    [0.5, 0.05]
    """
    if isinstance(scaling, FixedNTK):
        theta *= scaling.alpha ** (dim / (dim - 2))
    plain = theta ** -(np.arange(0, dim, 2) / dim)
    if isinstance(scaling, Linear):
        return plain / scaling.factor
    if isinstance(scaling, Llama3):
        return _llama3(plain, scaling)
    if isinstance(scaling, Yarn):
        low, high = yarn_range(dim, theta, scaling)
        ramp = np.clip((np.arange(dim // 2) - low) / (high - low), 0, 1)
        return plain / scaling.factor * ramp + plain * (1 - ramp)
    return plain


def ntk_theta(lengths: NDArray[np.float64], dim: int, theta: float, scaling: DynamicNTK) -> NDArray[np.float64]:
    """The base for a token that is the n-th of its sequence.

    Each token has that of its own place, whatever comes after: a cached key never has to turn again, and decoding
    equals one pass.
    """
    over = np.maximum(lengths, scaling.original_max_seq_len) / scaling.original_max_seq_len
    return theta * (scaling.factor * over - scaling.factor + 1) ** (dim / (dim - 2))


def rope_gain(scaling: RopeScaling | None) -> float:
    """What cos and sin are multiplied by."""
    if not isinstance(scaling, Yarn):
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return _mscale(scaling, scaling.mscale) / _mscale(scaling, scaling.mscale_all_dim)
    return _mscale(scaling, 1.0)


def softmax_scale(config: ModelConfig) -> float:
    """What the scores q k are multiplied by before the softmax.

    >>> v3 = MLA(n_heads=128, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128)
    >>> yarn = Yarn(factor=40, original_max_seq_len=4096, mscale=1, mscale_all_dim=1)
    >>> round(v3.qk_head_dim**-0.5 * _mscale(yarn, 1) ** 2, 5)
    0.13523
    """
    attention, scaling = config.attention, config.rope_scaling
    if not isinstance(attention, MLA):
        return attention.head_dim**-0.5 if attention.scale is None else attention.scale
    gain = _mscale(scaling, scaling.mscale_all_dim) if isinstance(scaling, Yarn) and scaling.mscale_all_dim else 1.0
    return float(attention.qk_head_dim**-0.5 * gain**2)


def _mscale(scaling: Yarn, mscale: float) -> float:
    return 0.1 * mscale * math.log(scaling.factor) + 1.0


def _llama3(plain: NDArray[np.float64], scaling: Llama3) -> NDArray[np.float64]:
    turns = scaling.original_max_seq_len * plain / (2 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = np.clip(kept, 0, 1)
    return plain * kept + plain / scaling.factor * (1 - kept)


def yarn_range(dim: int, theta: float, scaling: Yarn) -> tuple[float, float]:
    """The ends of the ramp, as indices of pairs: those that make `beta_fast` and `beta_slow` turns in the original
    length.

    >>> yarn_range(64, 10000.0, Yarn(factor=40, original_max_seq_len=4096))  # DeepSeek-V3's
    (10, 23)
    """

    def pair(turns: float) -> float:
        return dim * math.log(scaling.original_max_seq_len / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair(scaling.beta_fast), pair(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    return low, high if high != low else high + 0.001
