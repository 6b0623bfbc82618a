"""Text told as beginning, end, middle, and back."""

from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from smallpress.corpus.fill_middle import Marks, holes_in_row, with_hole, without_hole

MARKS, END = Marks(begin=100, hole=101, end=102), 99


@given(st.lists(st.integers(0, 98), min_size=1, max_size=40), st.data())
def test_a_hole_anywhere_can_be_undone(text, data):
    ids = np.array(text)
    first = data.draw(st.integers(0, len(ids)))
    second = data.draw(st.integers(first, len(ids)))
    told = with_hole(ids, first, second, MARKS)
    assert len(told) == len(ids) + 3 and without_hole(told, MARKS).tolist() == text
    assert told[-1 - (second - first)] == MARKS.end


def test_a_row_keeps_its_length_and_every_documents_end():
    ids = np.array([1, 2, 3, END, 4, 5, END, 6, 7, 8])
    told = holes_in_row(ids, END, 1.0, Random(3), MARKS)
    assert len(told) == 10 and told[0] == MARKS.begin
    first = told[: np.flatnonzero(told == END)[0]]
    assert without_hole(first, MARKS).tolist() == [1, 2, 3]
    assert holes_in_row(ids, END, 0.0, Random(3), MARKS).tolist() == ids.tolist()


def test_so_many_documents_have_a_hole_as_asked():
    ids = np.tile([1, 2, 3, 4, END], 2000)
    told = holes_in_row(ids, END, 0.1, Random(0), MARKS)
    assert 0.08 < (told == MARKS.begin).sum() / (told == END).sum() < 0.12
