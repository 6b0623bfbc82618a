"""Thinking and answer apart, whatever the model does with the tags and wherever tokens end."""

import pytest

from smallpress.server.reader import Budget, Reader


def read(tokenizer, text, **options):
    """(thinking, answer, n_thinking) of a text pushed token by token, as a completion would come."""
    reader = Reader(tokenizer, **options)
    parts = []
    for id in tokenizer.encode(text, special=True):
        if reader.push(id):
            break
        parts += reader.take()
    reader.flush()
    parts += reader.take()
    thinking, answer = ("".join(text for kind, text in parts if kind == wanted) for wanted in ("thinking", "answer"))
    return thinking, answer, reader.n_thinking


@pytest.mark.parametrize(
    ("text", "opened", "expected"),
    [
        ("<think>hm</think>4", False, ("hm", "4", 4)),
        ("hm</think>4", True, ("hm", "4", 3)),
        ("4", False, ("", "4", 0)),
        ("<think>hm", False, ("hm", "", 3)),
        ("hm", True, ("hm", "", 2)),
        ("<think></think>4", False, ("", "4", 2)),
        ("<think>\n\n</think>\n\n4", False, ("", "4", 4)),
        ("<think>a</think>1<think>b</think>2", False, ("ab", "12", 6)),
        ("a</think>b", False, ("", "a</think>b", 0)),
        ("<think>a<think>b</think>c", False, ("a<think>b", "c", 5)),
        ("<think>想</think>四", False, ("想", "四", 5)),
        ("", False, ("", "", 0)),
    ],
)
def test_every_edge_of_the_tags(tokenizer, text, opened, expected):
    assert read(tokenizer, text, opened=opened) == expected


def test_tags_spelled_in_many_tokens_are_tags(tokenizer):
    reader = Reader(tokenizer)
    for id in tokenizer.encode("<think>hm</think>4"):  # as plain text: one token a letter
        reader.push(id)
    reader.flush()
    parts = reader.take()
    assert "".join(t for k, t in parts if k == "thinking") == "hm" and parts[-1] == ("answer", "4")


def test_stop_strings_end_the_answer_and_not_the_thinking(tokenizer):
    assert read(tokenizer, "<think>a END b</think>one END two", stops=("END",)) == ("a END b", "one ", 9)


def test_a_stop_string_across_tokens_is_never_shown(tokenizer):
    reader = Reader(tokenizer, ("stop here",))
    shown = []
    for id in tokenizer.encode("please stop herE or stop here or not"):
        ended = reader.push(id)
        shown += reader.take()
        if ended:
            break
    assert "".join(text for _, text in shown) == "please stop herE or " and reader.stopped


def test_the_hard_budget_ends_the_thinking_where_it_is_reached(tokenizer):
    reader = Reader(tokenizer, opened=True, budget=Budget(hard=3))
    assert [reader.push(id) for id in tokenizer.encode("abcdef")[:3]] == [False, False, True]
    assert reader.over_budget and not reader.stopped


def test_the_soft_budget_lets_the_sentence_end(tokenizer):
    reader = Reader(tokenizer, opened=True, budget=Budget(soft=3))
    pushed = [reader.push(id) for id in tokenizer.encode("a bcd. e")]
    assert pushed.index(True) == 5


def test_half_a_character_and_half_a_tag_may_become_whole(tokenizer):
    reader = Reader(tokenizer, opened=True, budget=Budget(hard=1))
    assert [reader.push(id) for id in tokenizer.encode("想")] == [False, False, True]
    reader = Reader(tokenizer, opened=True, budget=Budget(hard=3))
    assert not any(reader.push(id) for id in tokenizer.encode("a</think>"))
    assert not reader.thinking


def test_the_closing_has_a_sentence_only_where_something_was_thought(tokenizer):
    reader = Reader(tokenizer, opened=True, budget=Budget(hard=1, closing=" Enough."))
    assert tokenizer.decode(reader.closing_ids()) == "\n</think>\n\n"
    reader.push(tokenizer.encode("a")[0])
    reader.take()
    assert tokenizer.decode(reader.closing_ids()) == " Enough.\n</think>\n\n"
    reader.close(reader.closing_ids())
    assert not reader.thinking and not reader.over_budget and "".join(t for _, t in reader.take()) == " Enough."


def test_plain_completions_have_no_thinking(tokenizer):
    assert read(tokenizer, "<think>hm</think>4", splits=False) == ("", "<think>hm</think>4", 0)


def test_the_tags_around_an_answer_are_taken_away(tokenizer):
    text = " <think> 2 + 2 = 4 </think> <answer> 4 </answer>\nUser: and 3?"
    stops = ("</answer>", "\nUser:")
    thinking, answer, _ = read(tokenizer, text, stops=stops, tags_answer=True)
    assert (thinking, answer.strip()) == ("2 + 2 = 4", "4")
    assert read(tokenizer, "just 4\nUser: and", stops=stops, tags_answer=True)[:2] == ("", "just 4")
