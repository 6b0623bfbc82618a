import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallpress.tokenizer.thinking import ThinkingSplitter, opens_thinking, split_thinking


def split(pieces, opened=False):
    """(thinking, answer), from text that arrives in pieces."""
    splitter = ThinkingSplitter(opened)
    found = [part for piece in pieces for part in splitter.push(piece)] + splitter.flush()
    assert all(text for _, text in found)
    return tuple("".join(text for kind, text in found if kind == wanted) for wanted in ("thinking", "answer"))


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("<think>2 + 2</think>4", "2 + 2", "4"),
        (" <think>\n2 + 2\n</think>\n\n4\n", "2 + 2", "4\n"),
        ("4", "", "4"),
        ("", "", ""),
        ("<think></think>4", "", "4"),
        ("<think>\n\n</think>\n\n4", "", "4"),
        ("<think>never closed ", "never closed", ""),
        ("<think>", "", ""),
        ("so: <think>a</think> b", "a", "so:b"),
        ("<think>a</think>b<think>c</think>d", "ac", "bd"),
        ("<think>a <think> b</think>c", "a <think> b", "c"),
        ("<think>\n<think>\na</think>b", "a", "b"),
        ("<think> <think>", "", ""),
        ("<think><thin", "<thin", ""),
        ("<think><think></think>4", "", "4"),
        ("a</think>b", "", "a</think>b"),
        ("a <thin b", "", "a <thin b"),
        ("a <thin", "", "a <thin"),
        ("<think>a</thin", "a</thin", ""),
        ("if a <b and c< d", "", "if a <b and c< d"),
        ("<<think>a</think>", "a", "<"),
        ("<THINK>a</THINK>", "", "<THINK>a</THINK>"),
    ],
)
def test_thinking_and_answer_are_told_apart_however_the_text_arrives(text, thinking, answer):
    assert split([text]) == (thinking, answer)
    assert split(list(text)) == (thinking, answer)
    assert split_thinking(text) == (thinking, answer)


def test_where_the_prompt_opened_the_tag_the_text_begins_with_thinking():
    assert split(["2 + 2", "</think>", "4"], opened=True) == ("2 + 2", "4")
    assert split(["no end"], opened=True) == ("no end", "")
    assert split(["</think>4"], opened=True) == ("", "4")
    assert split_thinking("a</think>b", opened=True) == ("a", "b")


def test_an_opening_tag_that_repeats_the_prompts_is_dropped():
    for pieces in (["<think>\n2 + 2</think>4"], list("\n<think>\n2 + 2</think>4")):
        assert split(pieces, opened=True) == ("2 + 2", "4")
    assert split(["2 <think>+ 2"], opened=True) == ("2 <think>+ 2", "")


def test_other_tags_tell_other_things_apart():
    splitter = ThinkingSplitter(tags=("<answer>", "</answer>"))
    assert splitter.push("so <ans") + splitter.push("wer> 4 </answer>!") == [
        ("answer", "so"),
        ("thinking", "4"),
        ("answer", "!"),
    ]


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<", "</", "think", ">", "a", " ", "\n", "中"])).map("".join),
    st.lists(st.integers(1, 7)),
    st.booleans(),
)
def test_where_a_text_is_cut_makes_no_difference(text, lengths, opened):
    pieces, rest = [], text
    for length in lengths:
        pieces.append(rest[:length])
        rest = rest[length:]
    assert split([*pieces, rest], opened) == split([text], opened)


def test_text_is_given_out_as_soon_as_it_is_certain():
    splitter = ThinkingSplitter()
    assert splitter.push("a <") == [("answer", "a")]
    assert splitter.push("b") == [("answer", " <b")]
    assert splitter.push(" <think>c</th") == [("thinking", "c")]
    assert splitter.push("is") == [("thinking", "</this")]


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [("<Assistant><think>\n", True), ("<think>", True), ("<think>\n\n</think>\n\n", False), ("Assistant:", False)],
)
def test_a_prompt_that_ends_in_an_open_tag_is_recognised(prompt, opened):
    assert opens_thinking(prompt) is opened
