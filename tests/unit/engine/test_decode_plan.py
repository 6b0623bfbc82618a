import numpy as np

from smallpress.engine.decode_plan import plan_decode


def covered(tables: list[list[int]], lengths: list[int], page_size: int) -> list[list[tuple[int, int]]]:
    """The (page, offset) places that the plan lets each row read."""
    width = max(map(len, tables))
    padded = np.array([t + t[:1] * (width - len(t)) for t in tables])
    shared, own = plan_decode(padded, np.array(lengths), page_size)
    places: list[list[tuple[int, int]]] = [[] for _ in tables]

    def read(row: int, table: np.ndarray, n_tokens: int) -> None:
        places[row] += [(int(table[i // page_size]), i % page_size) for i in range(n_tokens)]

    for block in shared:
        for g, r in zip(*block.filled_GR.nonzero(), strict=True):
            read(int(block.rows_GR[g, r]), block.tables_GP[g], int(block.lengths_G[g]))
    for block in own:
        assert (block.lengths_R < block.tables_RP.shape[1] * page_size).all(), "no room for one more"
        for r, row in enumerate(block.rows_R):
            read(int(row), block.tables_RP[r], int(block.lengths_R[r]))
    return places


def expected(tables: list[list[int]], lengths: list[int], page_size: int) -> list[list[tuple[int, int]]]:
    return [[(t[i // page_size], i % page_size) for i in range(n)] for t, n in zip(tables, lengths, strict=True)]


def test_every_token_of_every_row_is_read_exactly_once_and_in_order():
    tables = [[0, 1, 2], [3], [0, 1, 4], [5, 6], [0, 1], [3, 7], [8, 9, 10]]
    for lengths in ([9, 1, 12, 5, 8, 8, 9], [10, 4, 9, 8, 5, 5, 12]):
        assert covered(tables, lengths, 4) == expected(tables, lengths, 4)


def test_rows_of_one_group_read_their_common_pages_together():
    shared, own = plan_decode(np.array([[0, 1, 2], [5, 5, 5], [0, 1, 3], [0, 1, 4]]), np.array([9, 2, 10, 11]), 4)
    assert len(shared) == 1 and len(own) == 1
    assert shared[0].rows_GR.tolist() == [[0, 2, 3]]
    assert shared[0].tables_GP.tolist() == [[0, 1]] and shared[0].lengths_G.tolist() == [8]
    assert own[0].lengths_R.tolist() == [1, 2, 2, 3]


def test_the_page_being_written_is_never_shared():
    shared, own = plan_decode(np.array([[0, 1], [0, 1]]), np.array([8, 8]), 4)
    assert shared[0].lengths_G.tolist() == [4] and own[0].lengths_R.tolist() == [4, 4]


def test_a_long_row_does_not_stretch_the_short_ones():
    tables = np.zeros((3, 100), dtype=np.int64)
    tables[0] = np.arange(100)
    tables[1:, 0] = [100, 101]
    _, own = plan_decode(tables, np.array([1600, 10, 12]), 16)
    assert [(o.rows_R.tolist(), o.tables_RP.shape[1]) for o in own] == [([1, 2], 1), ([0], 101)]


def test_groups_of_different_sizes_and_lengths():
    tables = [[i // 5 * 20 + j if j < 2 else 100 + i * 20 + j for j in range(2 + i % 4)] for i in range(15)]
    lengths = [len(t) * 4 - i % 3 for i, t in enumerate(tables)]
    assert covered(tables, lengths, 4) == expected(tables, lengths, 4)


def test_rollouts_under_one_template_read_template_and_question_together_when_that_is_less():
    # Two questions of two pages after a template of two, four rollouts each: 8 shared pages instead of 2 + 8 * 2.
    tables = [[0, 1, 10 + i // 4, 20 + i // 4, 30 + i] for i in range(8)]
    shared, own = plan_decode(np.array(tables), np.full(8, 18), 4)
    assert [s.tables_GP.tolist() for s in shared] == [[[0, 1, 10, 20], [0, 1, 11, 21]]]
    assert [o.lengths_R.tolist() for o in own] == [[2] * 8]


def test_a_long_common_beginning_is_not_read_once_more_for_a_short_branch():
    # A template of six pages, pairs that share one page more: two branches would read 14 pages instead of 6 + 4.
    tables = [[*range(6), 10 + i // 2, 20 + i] for i in range(4)]
    shared, own = plan_decode(np.array(tables), np.full(4, 30), 4)
    assert [s.tables_GP.tolist() for s in shared] == [[list(range(6))]]
    assert [o.lengths_R.tolist() for o in own] == [[6] * 4]


def test_the_plan_is_complete_for_random_trees():
    generator = np.random.default_rng(0)
    for _ in range(200):
        names: dict[tuple[int, ...], int] = {}
        tables, lengths = [], []
        for row in range(int(generator.integers(1, 12))):
            path = tuple(generator.integers(0, 2, size=int(generator.integers(1, 6))).tolist())
            tables.append([names.setdefault(path[: i + 1], len(names)) for i in range(len(path) - 1)] + [1000 + row])
            lengths.append(4 * (len(path) - 1) + int(generator.integers(1, 5)))
        assert covered(tables, lengths, 4) == expected(tables, lengths, 4)
