"""Answers held to a form: a random model, which would say anything, says what the schema allows."""

import json
import random
import urllib.request

import pytest

from smallpress.engine.drafts import PromptLookup
from smallpress.engine.engine import Engine
from smallpress.engine.native_runner import NativeRunner
from smallpress.model.config import GQA, Dense, ModelConfig
from smallpress.model.transformer import Transformer, init_weights
from smallpress.server.errors import ApiError
from smallpress.server.grammar import Vocabulary, choice_rule, json_rule, regex_rule

pytest.importorskip("llguidance")
pytest.importorskip("openai")

QUICK = {"effort": "none"}
HELLO = [{"role": "user", "content": "Hello"}]
SHORT = {"type": "string", "maxLength": 6}
SCHEMA = {
    "type": "object",
    "properties": {"who": SHORT, "old": {"type": "integer", "minimum": 0, "maximum": 99}, "ok": {"enum": ["a/b", "é"]}},
    "required": ["who", "old", "ok"],
    "additionalProperties": False,
}
AS_SCHEMA = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/small"}},
            "required": ["a"],
            "additionalProperties": False,
            "$defs": {"small": {"type": "integer", "minimum": 0, "maximum": 9}},
        },
    },
}
NOW = {"type": "function", "function": {"name": "now"}}


@pytest.fixture(scope="module")
def weights():
    config = ModelConfig(
        family="llama", vocab_size=261, dim=32, n_layers=1, attention=GQA(n_heads=4, n_kv_heads=2, head_dim=8),
        ffn=Dense(inter_dim=48), norm_eps=1e-5, rope_theta=1e4, max_seq_len=2048, tied_head=True,
    )  # fmt: skip
    model = Transformer(config)
    init_weights(model, std=0.3, seed=0)
    return model


@pytest.fixture
def served(start, weights):
    runner = NativeRunner(weights.config, dict(weights.named_parameters()), n_pages=512)
    served = start("", engine=Engine(runner, drafter=PromptLookup))
    yield served
    served.engine.check_integrity()


def ask(served, **fields):
    """Without thinking, which a random model would never end."""
    fields["extra_body"] = {"thinking_budget": 0} | fields.get("extra_body", {})
    return served.client().chat.completions.create(**({"model": "tiny", "messages": HELLO} | fields))


def check(text):
    value = json.loads(text)
    assert list(value) == ["who", "old", "ok"] and len(value["who"]) <= 6
    assert 0 <= value["old"] <= 99 and value["ok"] in ("a/b", "é")


def test_answers_follow_the_schema_whole_streamed_and_many(served):
    done = ask(served, response_format=AS_SCHEMA, n=3, logprobs=True, top_logprobs=2)
    assert len({choice.message.content for choice in done.choices}) == 3
    for choice in done.choices:
        check(choice.message.content)
        assert choice.finish_reason == "stop"
        assert all(entry.logprob > -9999 for entry in choice.logprobs.content)
    chunks = list(ask(served, response_format=AS_SCHEMA, stream=True, temperature=0))
    check("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
    forms = {"json": SCHEMA}, {"regex": "[ab]{3}/\\d"}, {"choice": ["yes", "no"]}
    texts = [ask(served, extra_body={"structured_outputs": form}).choices[0].message.content for form in forms]
    check(texts[0])
    assert len(texts[1]) == 5 and texts[1][3] == "/" and texts[2] in ("yes", "no")
    done = served.client().completions.create(model="tiny", prompt="a", max_tokens=300,
                                              extra_body={"response_format": AS_SCHEMA})  # fmt: skip
    check(done.choices[0].text)
    assert ask(served, response_format={"type": "json_object"}, max_tokens=9).choices[0].message.content.startswith("{")
    long = {"json": {"type": "object", "properties": {"a": {"type": "string", "minLength": 50}}, "required": ["a"]}}
    done = ask(served, extra_body={"structured_outputs": long}, max_tokens=9)
    assert done.choices[0].finish_reason == "length" and done.choices[0].message.content.startswith("{")


def test_thinking_is_free_and_the_answer_after_it_is_held(start, templates, weights):
    runner = NativeRunner(weights.config, dict(weights.named_parameters()), n_pages=512)
    served = start("", templates["plain"] + "<think>\n", engine=Engine(runner))
    for fields in ({"extra_body": {"thinking_budget": 20}}, {}):
        message = ask(served, response_format=AS_SCHEMA, temperature=1.5, max_tokens=600, **fields).choices[0].message
        check(message.content)
        assert hasattr(message, "reasoning") == ("extra_body" in fields)


def test_a_model_that_ends_its_text_while_it_thinks_still_answers(start, templates, weights, tokenizer):
    runner = NativeRunner(weights.config, dict(weights.named_parameters()), n_pages=512)
    served = start("", templates["plain"] + "<think>\n", engine=Engine(runner))
    [eos_id] = tokenizer.eos_ids
    fields = {"response_format": AS_SCHEMA, "logit_bias": {eos_id: 90}, "extra_body": {"thinking_budget": 20}}
    check(ask(served, **fields).choices[0].message.content)
    without_form = ask(served, **(fields | {"response_format": {"type": "text"}}))
    assert not without_form.choices[0].message.content and without_form.choices[0].finish_reason == "stop"


def test_a_required_call_is_made_and_its_arguments_fit(served):
    done = ask(served, tools=[ADD, NOW], tool_choice="required", parallel_tool_calls=False)
    [call] = done.choices[0].message.tool_calls
    assert done.choices[0].finish_reason == "tool_calls" and call.function.name in ("add", "now")
    named = {"type": "function", "function": {"name": "add"}}
    with served.client().chat.completions.stream(
        model="tiny", messages=HELLO, tools=[ADD, NOW], tool_choice=named, reasoning_effort="none"
    ) as stream:
        final = stream.get_final_completion()
    [call] = final.choices[0].message.tool_calls
    assert call.function.name == "add" and 0 <= json.loads(call.function.arguments)["a"] <= 9
    done = ask(served, tools=[NOW], tool_choice="auto", response_format=AS_SCHEMA)
    message = done.choices[0].message
    assert message.tool_calls or check(message.content) is None


def test_the_other_doors_hold_answers_too(served):
    format = {"type": "json_schema", "name": "person", "schema": SCHEMA}
    done = served.client().responses.create(model="tiny", input="Hello", text={"format": format}, reasoning=QUICK)
    check(done.output_text)
    tool = {"type": "function"} | ADD["function"]
    done = served.client().responses.create(model="tiny", input="Hello", tools=[tool], tool_choice="required",
                                            parallel_tool_calls=False, reasoning=QUICK)  # fmt: skip
    assert [item.type for item in done.output] == ["function_call"] and done.output[0].name == "add"
    for format in (SCHEMA, "json"):
        body = {
            "model": "tiny",
            "messages": HELLO,
            "format": format,
            "stream": False,
            "think": False,
            "options": {"num_predict": 90},
        }
        request = urllib.request.Request(f"{served.url}/api/chat", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = json.loads(answer.read())["message"]["content"]
        assert content.startswith("{")


HOSTILE = {
    "look-around": {"type": "string", "pattern": "^(?=a)b"},
    "unclosed": {"type": "string", "pattern": "^(a"},
    "no such": {"$ref": "http://localhost:1/x"},
    "never": {"type": "integer", "minimum": 5, "maximum": 3},
    "not there": {"type": "array", "uniqueItems": True},
    "long": {"const": "a" * 70_000},
    "wide": {"type": "object", "properties": {f"p{i}": {} for i in range(2001)}},
    "no number": {"const": float("nan")},
}


@pytest.fixture(scope="module")
def vocabulary(byte_tokenizer):
    return Vocabulary(byte_tokenizer())


@pytest.mark.parametrize("schema", HOSTILE.values(), ids=HOSTILE)
def test_a_schema_that_cannot_be_followed_is_a_400(vocabulary, schema):
    with pytest.raises(ApiError) as caught:
        vocabulary.compile(f"start: {json_rule(schema, 'response_format')}", "response_format")
    assert caught.value.status == 400 and caught.value.param == "response_format" and len(caught.value.message) < 400


def test_a_pattern_that_grows_without_end_stops_its_own_answer(vocabulary):
    """Which of the last 30 letters was an a: two to the 30 states."""
    following = vocabulary.compile(f"start: {regex_rule('.*a.{30}')}", "structured_outputs").begin(False, False)
    letters = vocabulary.tokenizer.encode("ab")
    chosen = random.Random(0)
    for _ in range(40_000):
        if following.allowed() is None or following.push(chosen.choice(letters)):
            break
    assert following.fault is not None and following.fault.status == 400
    assert following.push(letters[0])


def test_thinking_may_open_first_and_two_line_ends_follow_it(vocabulary):
    tokenizer, grammar = vocabulary.tokenizer, vocabulary.compile(f"start: {choice_rule(['yes'])}", "x")
    y, think = tokenizer.encode("y")[0], tokenizer.id_of("<think>")
    assert grammar.begin(False, may_think=False).allowed().tolist() == [y]
    following = grammar.begin(False, may_think=True)
    assert following.allowed().tolist() == sorted([y, think])
    assert not following.push(think) and following.allowed() is None
    for id in tokenizer.encode("y</think>", special=True):
        assert not following.push(id)
    assert set(following.allowed().tolist()) == {y, *vocabulary.after_thinking}
    ends = [following.push(id) for id in tokenizer.encode("yes")]
    assert ends == [False, False, True]
