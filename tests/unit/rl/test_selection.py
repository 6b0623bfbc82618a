"""The choice of rollouts to train on against trying every choice there is."""

from itertools import combinations
from random import Random
from statistics import pvariance

from smallpress.rl.selection import most_varied


def test_no_other_choice_varies_more():
    dice = Random(0)
    for _ in range(200):
        rewards = [dice.choice((0.0, 0.1, 0.3, 1.0, dice.random())) for _ in range(dice.randint(2, 8))]
        n = dice.randint(2, len(rewards))
        best = max(pvariance(chosen) for chosen in combinations(rewards, n))
        places = most_varied(rewards, n)
        assert len(set(places)) == n and places == sorted(places)
        assert abs(pvariance([rewards[i] for i in places]) - best) < 1e-12


def test_a_group_that_disagrees_still_does():
    for n_right in range(1, 16):
        rewards = [1.0] * n_right + [0.0] * (16 - n_right)
        assert len({rewards[i] for i in most_varied(rewards, 2)}) == 2
