import subprocess
import sys

import numpy as np

from smallpress.engine.randomness import uniforms


def test_numbers_lie_in_the_unit_interval_with_mean_a_half_and_variance_a_twelfth():
    numbers = uniforms([3] * 100_000, range(100_000))
    assert numbers.min() >= 0.0 and numbers.max() < 1.0
    assert abs(numbers.mean() - 1 / 2) < 0.004  # 4 standard errors: sqrt(1/12 / 1e5) = 0.0009
    assert abs(numbers.var() - 1 / 12) < 0.001


def test_neighbouring_seeds_and_indices_are_uncorrelated():
    seeds, indices = np.divmod(np.arange(90_000), 300)
    grid = uniforms(seeds.tolist(), indices.tolist()).reshape(300, 300) - 0.5
    for a, b in ((grid[1:], grid[:-1]), (grid[:, 1:], grid[:, :-1])):
        assert abs((a * b).mean() * 12) < 0.014  # 4 / sqrt(9e4)


def test_a_number_does_not_depend_on_the_others_asked_for():
    together = uniforms([5, 2**63 - 1, 5], [0, 7, 1])
    assert together.tolist() == [uniforms([s], [i])[0] for s, i in ((5, 0), (2**63 - 1, 7), (5, 1))]
    assert len(set(together)) == 3


def test_numbers_are_the_same_in_another_process():
    code = "from smallpress.engine.randomness import uniforms; print(uniforms([7, 8], [0, 9]).tolist())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == str(uniforms([7, 8], [0, 9]).tolist())
