"""Calls told from text, wherever the pieces are cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallpress.tokenizer.calls import DEEPSEEK, DEEPSEEK_ONE, DEEPSEEK_SEPARATOR, HERMES, Call, CallReader

ADD = '{"name": "add", "arguments": {"a": 1, "b": "<tool_"}}'
HERMES_TEXT = f"Well.\n{HERMES[0]}\n{ADD}\n{HERMES[1]}\n{HERMES[0]}{ADD}{HERMES[1]}\n"
ONE = f'{DEEPSEEK_ONE[0]}function{DEEPSEEK_SEPARATOR}add\n```json\n{{"a": 1, "b": "<tool_"}}\n```{DEEPSEEK_ONE[1]}'
DEEPSEEK_TEXT = f"Well.{DEEPSEEK[0]}{ONE}\n{ONE}{DEEPSEEK[1]}"
LLAMA_TEXT = '{"name": "add", "parameters": {"a": 1, "b": "<tool_"}}; {"name": "add", "parameters": "{\\"a\\": 1}"}'


def read(text, cuts=(), names=("add",), most=64):
    """(text, calls, pieces) of `text` given in pieces that end at `cuts`."""
    reader, pieces, at = CallReader(names, most), [], 0
    for cut in [*sorted(cuts), len(text)]:
        pieces += reader.push(text[at:cut])
        at = cut
    pieces += reader.flush()
    calls = [(piece.name, json.loads(piece.arguments)) for piece in pieces if isinstance(piece, Call)]
    return "".join(piece for piece in pieces if isinstance(piece, str)), calls, pieces


BOTH = {"a": 1, "b": "<tool_"}


@pytest.mark.parametrize(
    ("text", "said", "second"),
    [(HERMES_TEXT, "Well.", BOTH), (DEEPSEEK_TEXT, "Well.", BOTH), (LLAMA_TEXT, "", {"a": 1})],
    ids=["hermes", "deepseek", "llama3"],
)
def test_each_form_is_read_the_same_wherever_it_is_cut(text, said, second):
    for cut in range(len(text)):
        found, calls, pieces = read(text, [cut])
        assert found.strip() == said and calls == [("add", BOTH), ("add", second)]
    found, calls, pieces = read(text, range(len(text)))
    assert found.strip() == said and len(calls) == 2
    assert len({piece.id for piece in pieces if isinstance(piece, Call)}) == 2


@given(st.text(alphabet='<>tol_ca/{}"n \n', max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_what_is_no_call_comes_out_as_it_was(text, cuts):
    assert read(text, cuts)[:2] == (text, [])


@pytest.mark.parametrize(
    "body",
    ["{broken", "[1]", '{"name": "other", "arguments": {}}', '{"name": "add", "arguments": [1]}', '{"name": 1}', "",
     '{"name": "add", "arguments": {"a": NaN}}', "[" * 5000, f"{ADD} and more"],
    ids=lambda body: body[:30],
)  # fmt: skip
def test_what_stands_where_a_call_would_and_is_none_is_text(body):
    text = f"a {HERMES[0]}{body}{HERMES[1]} b"
    said, calls, _ = read(text)
    assert calls == [] and said.split() == text.split()


def test_a_call_whose_closing_tag_is_missing_is_one_and_half_a_call_is_none():
    assert read(f"{HERMES[0]}{ADD}")[1] == [("add", BOTH)]
    half = f"{HERMES[0]}{ADD[:-1]}"
    assert read(half)[:2] == (half, [])


def test_no_more_calls_than_asked_for():
    assert len(read(HERMES_TEXT, most=1)[1]) == 1


def test_json_that_is_no_call_streams():
    reader = CallReader(["add"])
    assert reader.push('{"city": "Par') == ['{"city": "Par']
