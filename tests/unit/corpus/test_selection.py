"""Which documents are kept, and on which side."""

import random

import pytest

from smallpress.corpus.build import check_sides
from smallpress.corpus.documents import Document, Tally
from smallpress.corpus.filters import Measured
from smallpress.corpus.near_duplicates import NearDuplicates
from smallpress.corpus.selection import Selection
from smallpress.run.errors import UserError

WORDS = [f"word{i}" for i in range(1000)]


def sides(texts, tally=None, **settings):
    selection = Selection(**({"held_out": 0.0} | settings))
    return [selection.side(Document(text, f"line {i}"), tally or Tally()) for i, text in enumerate(texts, start=1)]


def test_a_text_is_kept_once_however_it_is_spaced_and_composed():
    tally = Tally()
    kept = sides(["caf\u00e9 noir", "cafe\u0301  noir\n", "Caf\u00e9 noir"], tally)
    assert kept == ["train", None, "train"] and tally.places == {"the same as another": ["line 2"]}


def test_a_document_stays_on_its_side_when_others_are_added():
    texts = [f"document {i}" for i in range(2000)]
    alone = sides(texts[:100], held_out=0.1)
    among = sides(texts, held_out=0.1)
    assert among[:100] == alone and sides(texts[:100][::-1], held_out=0.1) == alone[::-1]
    assert abs(among.count("held_out") - 200) < 40  # standard deviation 13
    larger = sides(texts, held_out=0.2)
    assert all(more == "held_out" for less, more in zip(among, larger, strict=True) if less == "held_out")


def test_what_is_measured_is_not_trained_on():
    question = "How many clips did Natalia sell altogether in April and in May?"
    tally = Tally()
    kept = sides(["Unrelated.", f"Solved: {question.upper()} 72."], tally, measured=Measured([question]))
    assert kept == ["train", None] and tally.counts == {"shares 10 words in a row with what is measured": 1}


def changed(text, n, draw):
    """The text with n words replaced: each changes at most 5 runs of 5."""
    words = text.split()
    for place in draw.sample(range(len(words)), n):
        words[place] = f"new{place}"
    return " ".join(words)


def test_near_duplicates_are_left_out_and_texts_half_alike_are_kept():
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=300)) for _ in range(20)]
    near = NearDuplicates()
    assert not any(map(near.seen, texts))
    assert all(near.seen(changed(text, 3, draw)) for text in texts)  # about 281 of 311 runs shared: 0.90 alike
    assert not any(near.seen(changed(text, 25, draw)) for text in texts)  # about 190 of 402: 0.47 alike
    assert not near.seen("too short to tell") and not near.seen("too short to tell")


def test_near_duplicates_are_found_in_chinese():
    near, poem = NearDuplicates(), "".join(chr(0x4E00 + i * 7) for i in range(200))
    assert not near.seen(poem) and near.seen(f"{poem}。另一行") and not near.seen(poem[::-1])


def test_a_side_without_documents_is_said_with_the_remedy():
    tally = Tally()
    tally.leave_out("no text", "a.jsonl: line 1")
    with pytest.raises(UserError, match=r"no document is left: no text \(1 times: a\.jsonl: line 1\); .*--field"):
        check_sides(0, 0, 0.01, tally)
    with pytest.raises(UserError, match=r"of 5 documents none is held out at a share of 0\.01"):
        check_sides(5, 0, 0.01, tally)
    with pytest.raises(UserError, match="none is left to train on"):
        check_sides(0, 5, 0.01, tally)
    check_sides(5, 0, 0.0, tally)
