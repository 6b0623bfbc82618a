"""Ollama's own client: what it asks, and that it understands every answer."""

import pytest

ollama = pytest.importorskip("ollama")

ASK = [{"role": "user", "content": "1 + 1?"}]
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


def add(a: int) -> int:
    """Adds one.

    Args:
      a: A number.
    """
    return a + 1


@pytest.fixture
def client_of():
    clients = []

    def make(served, **settings):
        clients.append(ollama.Client(host=served.url, timeout=60, **settings))
        return clients[-1]

    yield make
    for client in clients:
        client._client.close()


def test_chat_and_generate_whole_and_streamed(start, client_of):
    served = start("<think>two</think>\n\nfour")
    client = client_of(served)
    done = client.chat("tiny", ASK, options={"temperature": 0, "num_predict": 40, "num_ctx": 512}, keep_alive="5m")
    assert (done.message.thinking, done.message.content, done.done_reason) == ("two", "four", "stop")
    assert done.done and done.eval_count == 12 and done.total_duration > 0 and done.prompt_eval_count > 0
    lines = list(client.chat("tiny:latest", ASK, stream=True, think=True))
    assert "".join(line.message.thinking or "" for line in lines) == "two"
    assert "".join(line.message.content for line in lines) == "four" and lines[-1].done
    assert client.generate("tiny", "1 + 1?", system="Be brief.").response == "four"
    assert "".join(line.response for line in client.generate("tiny", "1?", stream=True)) == "four"
    found = client.chat("tiny", ASK, logprobs=True, top_logprobs=1).logprobs
    assert "".join(entry.token for entry in found) == "\n\nfour" and len(found[0].top_logprobs) == 1
    assert client.chat("tiny", ASK, options={"num_predict": 3}).done_reason == "length"


def test_functions_are_called_and_their_results_read(start, client_of):
    served = start(lambda prompt: "Two." if "<tool_response>" in prompt else CALL)
    client = client_of(served)
    done = client.chat("tiny", ASK, tools=[add])
    [call] = done.message.tool_calls
    assert (call.function.name, call.function.arguments, done.done_reason) == ("add", {"a": 1}, "stop")
    result = {"role": "tool", "content": str(add(**call.function.arguments)), "tool_name": "add"}
    assert client.chat("tiny", [*ASK, done.message, result], tools=[add]).message.content == "Two."
    assert '"add"' in served.engine.tokenizer.decode(served.engine.requests[0].prompt_ids)
    lines = list(client.chat("tiny", ASK, tools=[add], stream=True))
    assert [len(line.message.tool_calls or []) for line in lines] == [1, 0]


def test_a_format_becomes_a_constraint(start, client_of):
    pytest.importorskip("llguidance")
    served = start("{}")
    for format in ("json", {"type": "object"}):
        assert client_of(served).chat("tiny", ASK, format=format).message.content == "{}"
    assert all(request.constraint is not None for request in served.engine.requests)


def test_models_are_listed_shown_and_loaded(start, client_of):
    client = client_of(start("x"))
    assert [model.model for model in client.list().models] == ["tiny"]
    assert [model.model for model in client.ps().models] == ["tiny"]
    assert client.show("tiny").capabilities == ["completion", "tools", "thinking"]
    assert client.generate("tiny").done_reason == "load"
    assert client.chat("tiny").message.content == ""


def test_errors_are_texts(start, client_of):
    client = client_of(start("x", keys=[("me", "a-key-of-enough-characters")]))
    with pytest.raises(ollama.ResponseError, match="no valid API key") as caught:
        client.chat("tiny", ASK)
    assert caught.value.status_code == 401
    client = client_of(start("x"))
    for ask, status, said in (
        (lambda: client.chat("huge", ASK), 404, "there is no model 'huge'"),
        (lambda: client.chat("tiny", ASK, options={"mirostat": 1}), 400, "options.mirostat is not a field"),
        (lambda: client.chat("tiny", ASK, format={"$ref": "http://x/"}), 400, "cannot be followed"),
        (lambda: client.embed("tiny", "x"), 501, "no embeddings"),
        (lambda: client.pull("tiny"), 404, "no such path"),
    ):
        with pytest.raises(ollama.ResponseError, match=said) as caught:
            ask()
        assert caught.value.status_code == status
