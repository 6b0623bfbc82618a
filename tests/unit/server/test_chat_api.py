"""OpenAI's own client over a scripted engine: what comes back, whole and in pieces."""

import pytest

from smallpress.tokenizer.thinking import CLOSING

openai = pytest.importorskip("openai")


HELLO = [{"role": "user", "content": "Hello"}]
THOUGHT = "<think>two and two</think>\n\nfour"


def ask(served, **fields):
    return served.client().chat.completions.create(**({"model": "tiny", "messages": HELLO} | fields))


def collected(chunks):
    """(reasoning, content, finish reason, usage) of a stream."""
    chunks = list(chunks)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant" and all(delta.role is None for delta in deltas[1:])
    reasoning = "".join(getattr(delta, "reasoning", None) or "" for delta in deltas)
    assert reasoning == "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    content = "".join(delta.content or "" for delta in deltas)
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons.count(None) == len(reasons) - 1
    return reasoning, content, reasons[-1], chunks[-1].usage


def test_thinking_and_answer_come_apart_whole_and_streamed(start):
    served = start(THOUGHT)
    whole = ask(served)
    message = whole.choices[0].message
    assert (message.reasoning, message.reasoning_content, message.content) == ("two and two",) * 2 + ("four",)
    assert whole.choices[0].finish_reason == "stop"
    options = {"include_usage": True}
    reasoning, content, reason, usage = collected(ask(served, stream=True, stream_options=options))
    assert (reasoning, content, reason) == ("two and two", "four", "stop")
    assert usage == whole.usage
    # <think>, 11 letters, </think>, two line ends, four letters, the end
    assert usage.completion_tokens == 20 and usage.completion_tokens_details.reasoning_tokens == 13
    assert usage.prompt_cache_hit_tokens == 3 and usage.prompt_cache_miss_tokens == usage.prompt_tokens - 3


def test_without_thinking_there_is_no_reasoning_field(start):
    message = ask(start("four")).choices[0].message
    assert message.content == "four" and not hasattr(message, "reasoning")


def test_an_open_tag_in_the_prompt_is_thinking_from_the_first_token(start, templates):
    served = start("hm</think>4", templates["opened"])
    assert ask(served).choices[0].message.reasoning == "hm"
    assert collected(ask(served, stream=True))[:2] == ("hm", "4")


def test_no_effort_closes_the_thinking_before_it_begins(start, templates):
    """A template that knows enable_thinking opens no tag; one that always opens it has it closed at once."""
    always = templates["plain"] + "<think>\n"
    for template in (templates["opened"], always):
        served = start(lambda prompt: "4" if "<think>" not in prompt or "</think>" in prompt else "?", template)
        done = ask(served, reasoning_effort="none")
        assert done.choices[0].message.content == "4"
        assert done.usage.completion_tokens_details.reasoning_tokens == 0


def test_a_hard_budget_closes_the_thinking_and_the_answer_follows(start):
    served = start(lambda prompt: "42" if CLOSING in prompt else "<think>" + "a" * 1000)
    done = ask(served, extra_body={"thinking_budget": 10})
    message = done.choices[0].message
    assert message.reasoning == "a" * 9 + CLOSING and message.content == "42"
    assert done.choices[0].finish_reason == "stop"
    assert collected(ask(served, stream=True, extra_body={"thinking_budget": 10}))[:2] == (message.reasoning, "42")
    own = {"thinking_budget": 10, "thinking_closing": " So:"}
    served.engine.answer = lambda prompt: "42" if " So:" in prompt else "<think>" + "a" * 1000
    assert ask(served, extra_body=own).choices[0].message.reasoning == "a" * 9 + " So:"


def test_a_soft_budget_waits_for_the_end_of_the_sentence(start):
    served = start(lambda prompt: "42" if CLOSING in prompt else "<think>" + "One is one. " * 9)
    message = ask(served, extra_body={"soft_thinking_budget": 14}).choices[0].message
    assert message.reasoning == "One is one. One is one." + CLOSING and message.content == "42"


def test_the_budget_counts_within_max_tokens(start):
    served = start("<think>" + "a" * 1000)
    done = ask(served, max_tokens=12, extra_body={"thinking_budget": 10})
    assert done.choices[0].finish_reason == "length" and done.choices[0].message.content == ""
    assert done.choices[0].message.reasoning.startswith("aaaaaaaaa")


def test_stop_strings_across_pieces(start):
    served = start("one two three")
    assert ask(served, stop=["wo t", "zzz"]).choices[0].message.content == "one t"
    reasoning, content, reason, _ = collected(ask(served, stream=True, stop="wo t"))
    assert (reasoning, content, reason) == ("", "one t", "stop")


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_longest_answer_by_either_name(start, name):
    done = ask(start("abcdef"), **{name: 3})
    assert done.choices[0].message.content == "abc" and done.choices[0].finish_reason == "length"
    assert done.usage.completion_tokens == 3


def test_n_choices_have_seeds_of_their_own(start):
    served = start("abc")
    done = ask(served, n=3, seed=5)
    assert [choice.index for choice in done.choices] == [0, 1, 2]
    assert sorted(request.params.seed for request in served.engine.requests) == [5, 6, 7]
    assert done.usage.completion_tokens == 12
    chunks = list(ask(served, n=2, stream=True))
    assert {chunk.choices[0].index for chunk in chunks} == {0, 1}


def test_settings_reach_the_engine(start):
    served = start("abc")
    extra = {"top_k": 7, "min_p": 0.1}
    ask(served, temperature=0, top_p=0.5, logit_bias={"9": -100}, presence_penalty=1, frequency_penalty=-1,
        extra_body=extra)  # fmt: skip
    params = served.engine.requests[0].params
    assert (params.temperature, params.top_p, params.top_k, params.min_p) == (0.0, 0.5, 7, 0.1)
    assert (params.logit_bias, params.presence_penalty, params.frequency_penalty) == (((9, -100.0),), 1.0, -1.0)


def test_logprobs_of_thinking_and_answer_apart(start):
    served = start("<think>a</think>bc")
    found = ask(served, logprobs=True, top_logprobs=2).choices[0].logprobs
    assert [entry.token for entry in found.content] == ["b", "c"]
    assert len(found.reasoning_content) == 3 and len(found.content[0].top_logprobs) == 2
    assert found.content[0].logprob == -0.5 and found.content[0].bytes == [98]
    chunks = list(ask(served, logprobs=True, stream=True))
    tokens = [entry.token for c in chunks if c.choices[0].logprobs for entry in c.choices[0].logprobs.content]
    assert tokens == ["b", "c"]


def test_reasoning_sent_back_is_dropped(start):
    served = start(lambda prompt: "leaked" if "secret" in prompt else "fine")
    turns = [
        *HELLO,
        {"role": "assistant", "content": "4", "reasoning_content": "secret", "reasoning": "secret"},
        *HELLO,
    ]
    assert ask(served, messages=turns).choices[0].message.content == "fine"


def test_control_tokens_in_a_message_stay_text(start):
    served = start("ok")
    ask(served, messages=[{"role": "user", "content": [{"type": "text", "text": "<|im_end|><think>"}]}])
    ids = served.engine.requests[0].prompt_ids
    assert ids.count(1) == 1 and 2 not in ids


def test_completions_go_on_with_a_text(start):
    served = start("<think>b</think>")
    create = served.client().completions.create
    done = create(model="tiny", prompt="a", echo=True)
    assert done.choices[0].text == "a<think>b</think>"
    assert done.usage.completion_tokens_details.reasoning_tokens == 0
    done = create(model="tiny", prompt=[[97, 98], [99]], n=2, max_tokens=2, logprobs=1)
    assert [choice.index for choice in done.choices] == [0, 1, 2, 3]
    assert done.choices[0].logprobs.text_offset == [0, 7]
    chunks = list(create(model="tiny", prompt="a", stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == "<think>b</think>"
    assert chunks[-1].usage.completion_tokens == 4


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f g"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"functions": []}, "functions"),
        ({"n": 9}, "n"), ({"n": 0}, "n"), ({"temperature": 2.1}, "temperature"), ({"top_p": 0}, "top_p"),
        ({"stop": ["a"] * 5}, "stop"), ({"stop": [""]}, "stop[0]"), ({"stop": "a" * 257}, "stop"),
        ({"max_tokens": 0}, "max_tokens"), ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"), ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"messages": []}, "messages"), ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"extra_body": {"foo": 1}}, "foo"), ({"extra_body": {"seed": "5"}}, "seed"),
        ({"extra_body": {"thinking_budget": -2}}, "thinking_budget"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_done_is_a_400_that_names_the_field(start, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(start("abc"), **fields)
    assert caught.value.param == param and caught.value.type == "invalid_request_error"


def test_an_unknown_model_is_a_404(start):
    with pytest.raises(openai.NotFoundError) as caught:
        ask(start("abc"), model="gpt-9")
    assert caught.value.code == "model_not_found"


def test_models_are_listed(start):
    client = start("abc").client()
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_a_model_trained_in_a_plain_form_is_asked_in_it(start):
    served = start("<think> hm </think> <answer> 4 </answer> more", form="r1_zero")
    message = ask(served, messages=[*HELLO, {"role": "assistant", "content": "Hi"}, *HELLO]).choices[0].message
    assert (message.reasoning, message.content.strip()) == ("hm", "4")
    prompt = served.engine.tokenizer.decode(served.engine.requests[0].prompt_ids)
    assert prompt.endswith("User: Hello\nAssistant:") and "Hi" not in prompt
    with pytest.raises(openai.BadRequestError, match="no system text"):
        ask(served, messages=[{"role": "system", "content": "x"}, *HELLO])


def test_a_model_that_ends_where_its_budget_does_has_ended(start):
    served = start("<think>aaa")  # the fifth token is the end
    done = ask(served, extra_body={"thinking_budget": 5})
    assert done.choices[0].finish_reason == "stop" and done.choices[0].message.reasoning == "aaa"
    assert len(served.engine.requests) == 1
