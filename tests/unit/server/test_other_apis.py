"""The other doors: responses, Ollama's, tokenize, metrics."""

import json
import re
import urllib.error
import urllib.request

import pytest

THOUGHT = "<think>two and two</think>\n\nfour"


def post(served, path, **body):
    """The answer: one object, or a list of the lines."""
    request = urllib.request.Request(served.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            lines = answer.read().decode().splitlines()
    except urllib.error.HTTPError as error:
        with error:
            return json.loads(error.read()) | {"status": error.code}
    return json.loads(lines[0]) if len(lines) == 1 else [json.loads(line) for line in lines]


def get(served, path):
    with urllib.request.urlopen(served.url + path, timeout=120) as answer:
        return answer.read().decode()


def test_responses_have_reasoning_and_message_apart(start):
    client = start(THOUGHT).client()
    done = client.responses.create(model="tiny", input="What is 2 + 2?", instructions="Be brief.", store=False)
    assert done.output_text == "four" and done.status == "completed"
    assert [item.type for item in done.output] == ["reasoning", "message"]
    assert done.output[0].content[0].text == "two and two"
    assert done.usage.output_tokens == 20 and done.usage.output_tokens_details.reasoning_tokens == 13
    again = [{"role": "user", "content": "Hello"}, *(item.model_dump(exclude_none=True) for item in done.output),
             {"role": "user", "content": [{"type": "input_text", "text": "And?"}]}]  # fmt: skip
    assert client.responses.create(model="tiny", input=again).output_text == "four"


def test_responses_stream_as_events_that_the_client_puts_together(start):
    client = start(THOUGHT).client()
    events = list(client.responses.create(model="tiny", input="2 + 2?", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created" and events[-1].type == "response.completed"
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "four"
    assert "".join(e.delta for e in events if e.type == "response.reasoning_text.delta") == "two and two"
    added = [event.item.type for event in events if event.type == "response.output_item.added"]
    done = [event.item.type for event in events if event.type == "response.output_item.done"]
    assert added == done == ["reasoning", "message"]
    assert events[-1].response.output_text == "four"


def test_responses_cut_short_say_so(start):
    done = start("abcdef").client().responses.create(model="tiny", input="x", max_output_tokens=3)
    assert done.status == "incomplete" and done.output_text == "abc"


@pytest.mark.parametrize("field", ["previous_response_id", "conversation", "background"])
def test_what_needs_a_store_is_refused(start, field):
    answer = post(start("x"), "/v1/responses", model="tiny", input="x", **{field: "y"})
    assert answer["status"] == 400 and answer["error"]["param"] == field


def test_ollama_chat_streams_lines_with_thinking_apart(start):
    served = start(THOUGHT)
    lines = post(served, "/api/chat", model="tiny:latest", messages=[{"role": "user", "content": "2 + 2?"}])
    assert "".join(line["message"].get("thinking", "") for line in lines) == "two and two"
    assert "".join(line["message"]["content"] for line in lines) == "four"
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["eval_count"] == 20 and lines[-1]["total_duration"] > 0


def test_ollama_generate_whole_with_options(start):
    served = start("abcdef")
    options = {"num_predict": 3, "temperature": 0, "seed": 7, "top_k": 5}
    done = post(served, "/api/generate", model="tiny", prompt="x", stream=False, options=options, think=False)
    assert done["response"] == "abc" and done["done_reason"] == "length" and done["eval_count"] == 3
    params = served.engine.requests[0].params
    assert (params.temperature, params.seed, params.top_k, params.max_tokens) == (0.0, 7, 5, 3)


def test_ollama_lists_and_shows_and_changes_nothing(start):
    served = start("x")
    assert [model["name"] for model in json.loads(get(served, "/api/tags"))["models"]] == ["tiny"]
    assert "<|im_start|>" in post(served, "/api/show", model="tiny")["template"]
    assert set(json.loads(get(served, "/api/version"))) == {"version"}
    for path in ("/api/create", "/api/delete", "/api/pull", "/api/push", "/api/copy"):
        assert post(served, path, model="tiny")["status"] == 404
    assert post(served, "/api/generate", model="tiny", prompt="x", options={"mirostat": 1})["status"] == 400


def test_text_becomes_ids_and_comes_back(start):
    served = start("x")
    found = post(served, "/tokenize", model="tiny", prompt="th<|im_end|>", return_token_strs=True)
    assert found["count"] == len(found["tokens"]) == 11 and found["token_strs"][0] == "th"
    assert 1 not in found["tokens"]
    assert post(served, "/detokenize", tokens=found["tokens"])["prompt"] == "th<|im_end|>"
    chat = post(served, "/tokenize", messages=[{"role": "user", "content": "a"}])
    assert chat["tokens"][0] == 0
    assert post(served, "/detokenize", tokens=[10**6])["error"]["param"] == "tokens"


def test_metrics_count_what_happened(start):
    served = start("abc")
    for _ in range(2):
        served.client().chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}])
    text = get(served, "/metrics")
    assert 'smallpress:request_success_total{model_name="tiny",finished_reason="stop"} 2' in text
    assert 'smallpress:request_generation_tokens_sum{model_name="tiny"} 8' in text
    buckets = re.findall(r'time_to_first_token_seconds_bucket\{model_name="tiny",le="[^"]+"\} (\d+)', text)
    assert buckets == sorted(buckets, key=int) and buckets[-1] == "2"
    assert all(re.fullmatch(r"# (HELP|TYPE) .+|[\w:]+\{[^}]*\} [-+.\w]+", line) for line in text.splitlines())
