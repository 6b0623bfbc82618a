"""A decoder that gives a text one number instead of the next word.

The score is a linear function of the last token's hidden state after the final norm: what transformers calls a
sequence classification with one label. Answers to one prompt are a group: what they begin with is computed once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smallpress.corpus.packing import common_start, first_fit
from smallpress.model.attention import Group, TokenTree
from smallpress.model.config import ModelConfig
from smallpress.model.hidden_rows import hidden_rows
from smallpress.model.transformer import Transformer

Ids = tuple[int, ...]


class RewardModel(Transformer):
    def __init__(self, config: ModelConfig):
        super().__init__(config.body())
        self.score = nn.Linear(config.dim, 1, bias=False)

    def scores(self, groups: Sequence[Sequence[Ids]]) -> Tensor:
        """[S] fp32: of every text of every group in order, in one pass."""
        ids: list[int] = []
        ends: list[int] = []
        layout = []
        for texts in groups:
            shared = common_start([text[:-1] for text in texts])  # each keeps a token of its own
            ids += shared
            for text in texts:
                assert text, "a text of no tokens has no score"
                ids += text[len(shared) :]
                ends.append(len(ids) - 1)
            layout.append(Group(len(shared), tuple(len(text) - len(shared) for text in texts)))
        hidden_SM = hidden_rows(self, TokenTree(tuple(layout)), torch.tensor(ids), torch.tensor(ends))
        return (hidden_SM.float() @ self.score.weight.float().T).squeeze(-1)


def tokens_of(texts: Sequence[Ids]) -> int:
    """What a group takes in a pass."""
    shared = len(common_start([text[:-1] for text in texts]))
    return shared + sum(len(text) - shared for text in texts)


def batches_of(groups: Sequence[Sequence[Ids]], token_budget: int) -> list[list[int]]:
    """Places of the groups that go through together; one over the budget goes alone."""
    return first_fit([tokens_of(texts) for texts in groups], token_budget)


@torch.no_grad()
def all_scores(model: RewardModel, groups: Sequence[Sequence[Ids]], token_budget: int) -> list[list[float]]:
    """The scores of each group's texts, without a gradient."""
    found: list[list[float]] = [[] for _ in groups]
    for places in batches_of(groups, token_budget):
        values = iter(model.scores([groups[i] for i in places]).tolist())
        for i in places:
            found[i] = [next(values) for _ in groups[i]]
    return found
