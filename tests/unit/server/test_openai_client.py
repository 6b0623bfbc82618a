"""OpenAI's client: its helpers put our streams together, and each error is of the class it has for it."""

import json
import threading

import pytest
from pydantic import BaseModel

from smallpress.server.limits import Limits

openai = pytest.importorskip("openai")

HELLO = [{"role": "user", "content": "Hello"}]
KEY = "a-key-of-enough-characters"


class Person(BaseModel):
    name: str
    old: int


def ask(client, **fields):
    return client.chat.completions.create(**({"model": "tiny", "messages": HELLO} | fields))


def test_answers_are_parsed_into_the_clients_types(start):
    pytest.importorskip("llguidance")
    served = start('<think>hm</think>{"name": "Ada", "old": 36}')
    client = served.client()
    done = client.chat.completions.parse(model="tiny", messages=HELLO, response_format=Person)
    assert done.choices[0].message.parsed == Person(name="Ada", old=36)
    assert served.engine.requests[0].constraint is not None
    with client.chat.completions.stream(model="tiny", messages=HELLO, response_format=Person) as stream:
        kinds = {event.type for event in stream}
        assert stream.get_final_completion().choices[0].message.parsed.old == 36
    assert {"chunk", "content.delta", "content.done"} <= kinds
    done = client.responses.parse(model="tiny", input="Hello", text_format=Person)
    assert done.output_parsed == Person(name="Ada", old=36)


def test_a_function_made_from_a_type_is_called_with_it(start):
    served = start('<tool_call>{"name": "Person", "arguments": {"name": "Ada", "old": 36}}</tool_call>')
    tool = openai.pydantic_function_tool(Person)
    done = served.client().chat.completions.parse(model="tiny", messages=HELLO, tools=[tool])
    assert done.choices[0].message.tool_calls[0].function.parsed_arguments == Person(name="Ada", old=36)
    with served.client().chat.completions.stream(model="tiny", messages=HELLO, tools=[tool]) as stream:
        kinds = [event.type for event in stream]
    assert "tool_calls.function.arguments.done" in kinds


def test_logprobs_come_in_pieces_with_their_tokens(start):
    chunks = list(ask(start("four").client(), stream=True, logprobs=True, top_logprobs=2, n=2))
    for index in (0, 1):
        entries = [entry for chunk in chunks for choice in chunk.choices if choice.index == index and choice.logprobs
                   for entry in choice.logprobs.content]  # fmt: skip
        assert "".join(entry.token for entry in entries) == "four"
        assert bytes(b for entry in entries for b in entry.bytes) == b"four"
        assert all(len(entry.top_logprobs) == 2 for entry in entries)


def test_each_error_is_of_its_class(start):
    keyed = start("x", keys=[("me", KEY)], limits=Limits(body_bytes=2000, live_per_key=1))
    good = keyed.client(KEY)
    for error, status, call in (
        (openai.AuthenticationError, 401, lambda: ask(keyed.client("wrong"))),
        (openai.PermissionDeniedError, 403, lambda: ask(good, extra_headers={"Origin": "http://elsewhere.example"})),
        (openai.NotFoundError, 404, lambda: ask(good, model="huge")),
        (openai.BadRequestError, 400, lambda: ask(good, temperature=3)),
        (openai.APIStatusError, 413, lambda: ask(good, messages=[{"role": "user", "content": "x" * 3000}])),
        (openai.APIStatusError, 405, lambda: good.get("/chat/completions", cast_to=object)),
        (openai.InternalServerError, 501, lambda: good.embeddings.create(model="tiny", input="x")),
    ):
        with pytest.raises(error) as caught:
            call()
        assert caught.value.status_code == status
        assert set(caught.value.body) == {"message", "type", "param", "code"}


def test_one_request_too_many_of_a_key_is_a_429(start):
    served = start("abc", keys=[("me", KEY)], limits=Limits(live_per_key=1))
    served.engine.longest = 1
    with ask(served.client(KEY), stream=True) as stream:
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as caught:
            ask(served.client(KEY))
    assert caught.value.response.headers["retry-after"] == "1"


def test_a_model_that_is_being_loaded_is_a_503(start):
    loading = threading.Event()
    served = start("x", slow=loading, wait=False)
    with pytest.raises(openai.InternalServerError) as caught:
        ask(served.client())
    assert caught.value.status_code == 503 and caught.value.code == "loading"
    loading.set()


def test_an_engine_that_fails_in_the_middle_is_an_error_in_the_stream(start):
    from smallpress.run.errors import UserError

    served = start("abcdef")
    served.engine.longest = 2
    stream = ask(served.client(), stream=True)
    first = next(iter(stream))
    assert first.choices[0].delta.role == "assistant"
    served.engine.fault = UserError("the model gives no numbers", "use another")
    with pytest.raises(openai.APIError, match="no numbers"):
        list(stream)
    assert json.loads(served.client().models.with_raw_response.list().text)["object"] == "list"
