"""A pass over packed sequences that ends with the rows somebody wants."""

from torch import Tensor

from smallpress.model.attention import PackedCausal, TokenTree
from smallpress.model.transformer import Transformer


def hidden_rows(model: Transformer, tree: TokenTree, ids_N: Tensor, rows_P: Tensor) -> Tensor:
    """[P, M]: the final hidden states of the rows `rows_P` of the tree; only they need logits."""
    attend = PackedCausal(tree, model.embed.weight.dtype, ids_N.device, model.config.attention.window)
    return model(ids_N, tree.positions(), attend).index_select(0, rows_P)
