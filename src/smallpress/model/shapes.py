"""The name and shape of every tensor of a model, from its config alone."""

from smallpress.model.config import GQA, MLA, Dense, ModelConfig

Shapes = dict[str, tuple[int, ...]]


def tensor_shapes(config: ModelConfig) -> Shapes:
    """By the names of `Transformer.named_parameters()`: [output, input] for matrices, [expert, output, input] for
    stacks of them."""
    shapes: Shapes = {"embed.weight": (config.vocab_size, config.dim)}
    for layer in range(config.n_layers):
        shapes |= _under(f"layers.{layer}", block_shapes(config, layer))
    shapes["norm.weight"] = (config.dim,)
    if not config.tied_head:
        shapes["head.weight"] = (config.vocab_size, config.dim)
    for k in range(config.mtp.n_modules if config.mtp else 0):
        module: Shapes = {"embed_norm.weight": (config.dim,), "hidden_norm.weight": (config.dim,)}
        module["proj.weight"] = config.dim, 2 * config.dim
        module |= _under("block", block_shapes(config, config.n_layers + k)) | {"norm.weight": (config.dim,)}
        shapes |= _under(f"mtp.{k}", module)
    return shapes


def block_shapes(config: ModelConfig, layer: int) -> Shapes:
    """Of one layer; those from `n_layers` on are of MTP modules."""
    norm: Shapes = {"weight": (config.dim,)}
    attention = config.attention
    shapes = _under("attn_norm", norm) | _under("mlp_norm", norm)
    if config.post_norms:
        shapes |= _under("attn_post_norm", norm) | _under("mlp_post_norm", norm)
    attn = _gqa(attention, config.dim) if isinstance(attention, GQA) else _mla(attention, config.dim)
    return shapes | _under("attn", attn) | _under("mlp", _ffn(config, layer))


def _gqa(gqa: GQA, dim: int) -> Shapes:
    q_dim, kv_dim = gqa.n_heads * gqa.head_dim, gqa.n_kv_heads * gqa.head_dim
    shapes = _linear("q", q_dim, dim, gqa.q_bias) | _linear("k", kv_dim, dim, gqa.k_bias)
    shapes |= _linear("v", kv_dim, dim, gqa.v_bias) | _linear("o", dim, q_dim, gqa.o_bias)
    if gqa.qk_norm:
        shapes |= {"q_norm.weight": (gqa.head_dim,), "k_norm.weight": (gqa.head_dim,)}
    return shapes


def _mla(mla: MLA, dim: int) -> Shapes:
    q_dim, rank = mla.n_heads * mla.qk_head_dim, mla.q_lora_rank
    if rank is None:
        shapes = _linear("q", q_dim, dim, False)
    else:
        shapes = _linear("q_a", rank, dim, mla.bias) | {"q_a_norm.weight": (rank,)} | _linear("q_b", q_dim, rank, False)
    shapes |= _linear("kv_a", mla.kv_lora_rank + mla.qk_rope_head_dim, dim, mla.bias)
    shapes |= {"kv_a_norm.weight": (mla.kv_lora_rank,)}
    shapes |= _linear("kv_b", mla.n_heads * (mla.qk_nope_head_dim + mla.v_head_dim), mla.kv_lora_rank, False)
    return shapes | _linear("o", dim, mla.n_heads * mla.v_head_dim, mla.bias)


def _ffn(config: ModelConfig, layer: int) -> Shapes:
    ffn, dim = config.ffn_of(layer), config.dim
    if isinstance(ffn, Dense):
        return _dense(ffn, dim)
    E, F = ffn.n_routed_experts, ffn.moe_inter_dim
    shapes: Shapes = {"router.weight": (E, dim)}
    if ffn.expert_bias:
        shapes["router.expert_bias"] = (E,)
    shapes |= {"experts.gate": (E, F, dim), "experts.up": (E, F, dim), "experts.down": (E, dim, F)}
    return shapes if ffn.shared is None else shapes | _under("shared", _dense(ffn.shared, dim))


def _dense(ffn: Dense, dim: int) -> Shapes:
    width, bias = ffn.inter_dim, ffn.bias
    return _linear("gate", width, dim, bias) | _linear("up", width, dim, bias) | _linear("down", dim, width, bias)


def _linear(name: str, n_out: int, n_in: int, bias: bool) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (n_out, n_in)}
    return shapes | {f"{name}.bias": (n_out,)} if bias else shapes


def _under(prefix: str, shapes: Shapes) -> Shapes:
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}
