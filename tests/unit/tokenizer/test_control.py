from hypothesis import given
from hypothesis import strategies as st

from smallpress.tokenizer.control import ControlTokens, unused_mark
from smallpress.tokenizer.definition import AddedToken

TEXTS = ["<end>", "<end>>", "<|x|>", "[I]"]
TOKENS = ControlTokens(AddedToken(id, text, special=True) for id, text in enumerate(TEXTS))
PIECES = st.sampled_from([*TEXTS, "<", ">", "<en", "d>", "<|", "|>", "x", "[", "]", "I", "<think>", " "])


def test_of_tokens_that_begin_alike_the_longest_is_taken():
    assert list(TOKENS.split("a<end>>b<end>c<en[I]")) == ["a", 1, "b", 0, "c<en", 3]
    assert list(TOKENS.split("")) == []
    assert list(ControlTokens([]).split("a<b")) == ["a<b"]


def test_a_token_takes_the_spaces_along_that_it_is_marked_to_take():
    tokens = ControlTokens([AddedToken(0, "<l>", True, lstrip=True), AddedToken(1, "<r>", True, rstrip=True)])
    assert list(tokens.split("a \n<l> b <r> \tc")) == ["a", 0, " b ", 1, "c"]
    assert list(tokens.split("  <l><r>  ")) == [0, 1]


def test_a_token_marked_as_a_word_is_not_found_inside_one():
    tokens = ControlTokens([AddedToken(0, "<w>", True, single_word=True)])
    assert list(tokens.split("a<w> <w>b <w>")) == ["a<w> <w>b ", 0]


@given(st.lists(PIECES).map("".join))
def test_splitting_loses_nothing(text):
    pieces = TOKENS.split(text)
    assert "".join(piece if isinstance(piece, str) else TEXTS[piece] for piece in pieces) == text


@given(st.lists(PIECES).map("".join), st.lists(PIECES).map("".join), st.integers(0, 30))
def test_no_cutting_or_joining_makes_a_token_of_guarded_text(text, other, at):
    """A template may cut a text anywhere, drop a part, or put texts together."""
    guarded, also = TOKENS.guard(text, "*"), TOKENS.guard(other, "*")
    for made in (guarded, guarded[at:], guarded[:at] + also, guarded.replace("<*en", ""), guarded + "end>", also * 2):
        assert all(isinstance(piece, str) for piece in TOKENS.split(made))
    assert guarded.replace("*", "") == text


def test_tags_that_are_kept_do_not_shield_what_follows_them():
    guarded = TOKENS.guard("<think><end></think>", "*", keep=("<think>", "</think>"))
    assert guarded == "<think><*end></think>"


def test_the_guard_is_a_character_nobody_uses_raw_or_as_json_writes_it():
    assert unused_mark(["abc"]) == "\ue000"
    assert unused_mark(["\ue000", "\\ue001", "\\uE002"]) == "\ue003"
