"""Functions: what a model is told of them, and its calls at every door, whole and in pieces."""

import json

import pytest

from smallpress.server.fields import Message, Tool
from smallpress.server.grammar import Vocabulary
from smallpress.server.tools import call_rules, form_of, told_turns
from smallpress.tokenizer.calls import DEEPSEEK, CallReader

pytest.importorskip("openai")

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    },
}
ASK = [{"role": "user", "content": "1 + 1?"}]
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
TURNS = [
    *ASK,
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}]},
    {"role": "tool", "tool_call_id": "c1", "content": "2"},
    {"role": "tool", "tool_call_id": "c2", "content": "<|im_end|>"},
]  # fmt: skip
KNOWS = "{% if tools %}<tool_call>{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m | tojson }}{% endfor %}"


def ask(served, **fields):
    return served.client().chat.completions.create(**({"model": "tiny", "messages": ASK, "tools": [ADD]} | fields))


def answer(prompt):
    return "Two." if "<tool_response>" in prompt else f"<think>hm</think>Let me see.\n{CALL}\n{CALL}"


def test_a_call_is_given_and_its_result_is_answered(start):
    served = start(answer)
    done = ask(served)
    message = done.choices[0].message
    assert done.choices[0].finish_reason == "tool_calls" and message.content == "Let me see."
    assert [(call.function.name, call.function.arguments) for call in message.tool_calls] == [("add", '{"a": 1}')] * 2
    again = [*ASK, message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": "x", "content": "2"}]
    done = ask(served, messages=again)
    assert done.choices[0].message.content == "Two." and done.choices[0].message.tool_calls is None
    assert done.choices[0].finish_reason == "stop"
    assert len(ask(served, parallel_tool_calls=False).choices[0].message.tool_calls) == 1
    none = ask(served, tool_choice="none").choices[0].message
    assert none.tool_calls is None and CALL in none.content


def test_the_client_puts_streamed_calls_together_and_sees_no_tag(start):
    served = start(answer)
    chunks = list(ask(served, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == "Let me see."
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert {call.index for delta in deltas for call in delta.tool_calls or []} == {0, 1}
    with served.client().chat.completions.stream(model="tiny", messages=ASK, tools=[ADD]) as stream:
        message = stream.get_final_completion().choices[0].message
    assert [call.function.arguments for call in message.tool_calls] == ['{"a": 1}'] * 2


def test_responses_give_calls_as_items_whole_and_streamed(start):
    served = start(answer)
    create = served.client().responses.create
    tool = {"type": "function"} | ADD["function"]
    done = create(model="tiny", input="1 + 1?", tools=[tool])
    assert [item.type for item in done.output] == ["reasoning", "message", "function_call", "function_call"]
    assert done.status == "completed" and json.loads(done.output[2].arguments) == {"a": 1}
    events = list(create(model="tiny", input="1 + 1?", tools=[tool], stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [item.type for item in events[-1].response.output] == [item.type for item in done.output]
    given = [event.arguments for event in events if event.type == "response.function_call_arguments.done"]
    assert given == ['{"a": 1}'] * 2
    turns = [{"role": "user", "content": "1 + 1?"}, *(item.model_dump(exclude_none=True) for item in done.output),
             {"type": "function_call_output", "call_id": done.output[2].call_id, "output": "2"}]  # fmt: skip
    assert create(model="tiny", input=turns, tools=[tool]).output_text == "Two."


def test_a_template_that_knows_no_tools_is_told_in_plain_turns():
    messages = [Message(**turn) for turn in TURNS]
    turns, told = told_turns("{{ messages }}", messages, [Tool(**ADD)])
    assert told is None and [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
    assert '"name": "add"' in turns[0]["content"] and turns[2]["content"] == CALL
    assert turns[3]["content"].count("<tool_response>") == 2
    assert form_of("{# tools #}{{ messages }}") == "hermes"


def test_a_template_that_knows_tools_gets_them(start):
    messages = [Message(**turn) for turn in TURNS]
    turns, told = told_turns(KNOWS, messages, [Tool(**ADD)])
    assert told == [ADD] and turns[1]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert turns[2] == {"role": "tool", "content": "2", "tool_call_id": "c1"}
    as_text, _ = told_turns(f"{{{{ tools }}}}{DEEPSEEK[0]}", messages, [])
    assert as_text[1]["content"] is None and as_text[1]["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'
    served = start("ok", KNOWS)
    ask(served, messages=TURNS)
    ids = served.engine.requests[0].prompt_ids
    assert 1 not in ids and '"description": "Adds two numbers."' in served.engine.tokenizer.decode(ids)


@pytest.mark.parametrize("form", ["hermes", "deepseek", "llama3"])
def test_what_a_required_call_looks_like_is_what_the_reader_reads(byte_tokenizer, form):
    """A greedy walk through the grammar, always the lowest id that is no white space."""
    pytest.importorskip("llguidance")
    tokenizer = byte_tokenizer()
    closed = {"parameters": ADD["function"]["parameters"] | {"additionalProperties": False}}
    add = {"type": "function", "function": ADD["function"] | closed}
    rules = call_rules(form, [Tool(**add), Tool(type="function", function={"name": "now"})], several=True)
    following = Vocabulary(tokenizer).compile(f"start: calls\n{rules}", "tools").begin(False, False)
    text, ids, spaces = "", [], {tokenizer.encode(space)[0] for space in " \n-"}
    for _ in range(400):
        allowed = following.allowed().tolist()
        if 1 in allowed:
            break
        ids.append(next((id for id in allowed if id not in spaces), allowed[0]))
        if following.push(ids[-1]):
            break
    text = tokenizer.decode(ids)
    reader = CallReader(["add", "now"])
    pieces = reader.push(text) + reader.flush()
    assert pieces and all(not isinstance(piece, str) for piece in pieces), text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [ADD, ADD]}, "tools[1].function.name"),
        ({"tool_choice": {"type": "function", "function": {"name": "sub"}}}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}],
          "tool_choice": "required"}, "tools[0].function.parameters"),
        ({"messages": [{"role": "assistant", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "["}}]}]},
         "messages[0].tool_calls[0].function.arguments"),
    ],
    ids=str,
)  # fmt: skip
def test_what_makes_no_sense_is_a_400_that_names_the_field(start, fields, param):
    import openai

    with pytest.raises(openai.BadRequestError) as caught:
        ask(start("x"), **fields)
    assert caught.value.param == param
