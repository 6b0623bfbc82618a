"""The shapes people bring become one; what is none of them is refused with its line."""

import json

import pytest

from smallpress.corpus.conversations import (
    Conversation,
    conversation_of,
    preference_of,
    read_conversations,
    read_preferences,
)
from smallpress.run.errors import UserError

ASKED, ANSWERED = {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}
SAME = [
    {"messages": [ASKED, ANSWERED]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "2 + "}, {"text": "2?"}]}, ANSWERED]},
    {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}], "id": 7},
    {"instruction": "2 + 2?", "input": "", "output": "4"},
    {"instruction": "2 + 2?", "output": "4", "input": None},
    {"prompt": [ASKED], "completion": "4"},
    {"prompt": "2 + 2?", "completion": [ANSWERED]},
]


@pytest.mark.parametrize("row", SAME, ids=lambda row: "+".join(row))
def test_every_shape_says_the_same(row):
    assert conversation_of(row) == Conversation((ASKED, ANSWERED))


def test_bare_texts_are_told_from_turns():
    assert conversation_of({"prompt": "2 + 2?", "completion": "4"}) == Conversation((ASKED, ANSWERED), plain=True)


def test_what_else_a_message_holds_stays():
    turn = {"role": "assistant", "content": None, "reasoning_content": "two and two"}
    assert conversation_of({"messages": [ASKED, turn]}).messages[1] == turn | {"content": ""}


WRONG = [
    ({"text": "2 + 2 = 4"}, "it has none of the shapes known, but 'text'"),
    ({}, "it has none of the shapes known, but no key"),
    ({"messages": []}, "messages is no list of messages"),
    ({"messages": ["2 + 2?"]}, "messages holds a str, not a message"),
    ({"messages": [{"content": "4"}]}, "a message of messages has no role"),
    ({"messages": [{"role": "user", "content": 4}]}, "content is no text, but a int"),
    ({"conversations": [{"from": "narrator", "value": "x"}]}, "a message is from 'narrator'"),
    ({"instruction": "x", "output": None}, "output is no text, but a NoneType"),
]


@pytest.mark.parametrize(("row", "says"), WRONG, ids=[says for _, says in WRONG])
def test_a_row_of_no_shape_is_named_with_its_line(row, says, tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(SAME[0]) + "\n\n" + json.dumps(row) + "\n")
    with pytest.raises(UserError) as error:
        list(read_conversations(file))
    assert f"a.jsonl: line 3: {says}" in error.value.message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"messages"', "line 1 is not JSON"),
        (b"[1]", "item 1 is a int, not an object"),
        (b"[{]", "is not JSON"),
        (b"7\n", "line 1 is a int, not an object"),
        (b'{"prompt": "\xff"}\n', "is not UTF-8"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_a_broken_file_is_one_error(content, says, tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(content)
    with pytest.raises(UserError, match=says):
        list(read_conversations(file))
    with pytest.raises(UserError, match="no such file"):
        list(read_conversations(tmp_path / "none"))


def test_one_list_and_lines_after_a_byte_order_mark_are_read_alike(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(SAME[:3], indent=1))
    (tmp_path / "a.jsonl").write_text("\ufeff" + "\n".join(map(json.dumps, SAME[:3])), encoding="utf-8")
    assert list(read_conversations(tmp_path / "a.json")) == list(read_conversations(tmp_path / "a.jsonl"))


def test_preferences_are_two_answers_to_one_prompt(tmp_path):
    other = {"role": "assistant", "content": "5"}
    whole = {"chosen": [ASKED, ANSWERED], "rejected": [ASKED, other]}
    apart = {"prompt": [ASKED], "chosen": [ANSWERED], "rejected": [other]}
    assert preference_of(whole) == preference_of(apart)
    assert preference_of({"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}).rejected.plain
    (tmp_path / "a.jsonl").write_text(json.dumps(whole) + "\n" + json.dumps({"chosen": "4"}))
    with pytest.raises(UserError, match="line 2: rejected is missing"):
        list(read_preferences(tmp_path / "a.jsonl"))
    with pytest.raises(ValueError, match="differ before their last message"):
        preference_of({"chosen": [ASKED, ANSWERED], "rejected": [other, ANSWERED]})
