"""A reward model as judge."""

import math
from collections.abc import Sequence
from itertools import groupby

from smallpress.model.reward_model import RewardModel, all_scores
from smallpress.rl.judge import Asked
from smallpress.tokenizer.tokenizer import Tokenizer
from smallpress.tokenizer.whole import encode_whole


class RewardJudge:
    """`tokenizer` is the reward model's own. What is longer than it can see has no score."""

    bounded = False

    def __init__(self, model: RewardModel, tokenizer: Tokenizer, token_budget: int):
        self.model, self.tokenizer, self.token_budget = model, tokenizer, token_budget

    def scores(self, asked: Sequence[Asked]) -> list[float]:
        found = [math.nan] * len(asked)
        groups: list[list[int]] = []
        texts: dict[int, tuple[int, ...]] = {}
        for _, places in groupby(range(len(asked)), key=lambda i: asked[i][0]):
            for i in (members := list(places)):
                messages, answer = asked[i]
                ids = encode_whole(self.tokenizer, [*messages, {"role": "assistant", "content": answer}])
                if len(ids) <= self.model.config.max_seq_len:
                    texts[i] = ids
            if kept := [i for i in members if i in texts]:
                groups.append(kept)
        values = all_scores(self.model, [[texts[i] for i in group] for group in groups], self.token_budget)
        for group, row in zip(groups, values, strict=True):
            for i, value in zip(group, row, strict=True):
                found[i] = value
        return found
