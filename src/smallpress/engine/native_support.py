"""Which models the native core runs."""

from smallpress.model.config import GQA, MLA, Dense, ModelConfig


def not_native(config: ModelConfig) -> str | None:
    """What the model has and the native core has not, in words; None where the core runs it.

    A window on every layer counts as none up to its length, which the native runner does not go beyond.
    """
    attention, ffn = config.attention, config.ffn
    if isinstance(attention, MLA):
        return "latent attention"
    if not isinstance(ffn, Dense):
        return "sparse experts"
    window = attention.window
    lacks = {
        "a norm on queries and keys": attention.qk_norm is not None,
        "scores scaled otherwise": attention.scale is not None,
        "windows with a rotation of their own": window is not None and window.rope_theta is not None,
        f"the activation {ffn.activation}": ffn.activation != "silu",
        "scaled rotation": config.rope_scaling is not None,
        "interleaved rotation": config.rope_interleaved,
        "norms after attention and feed-forward": config.post_norms,
        "scaled embeddings": config.embed_scale != 1.0,
        "multi-token prediction": config.mtp is not None,
    }
    return next((what for what, has in lacks.items() if has), None)


def native_length(config: ModelConfig) -> int:
    """How long a sequence may be there."""
    window = config.attention.window if isinstance(config.attention, GQA) else None
    return config.max_seq_len if window is None else min(config.max_seq_len, window.length)
