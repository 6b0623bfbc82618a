"""Whatever stands in a body, the answer is one of ours, and /openapi.json says which there can be."""

import http.client
import importlib.util
import json
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("extremes", Path(__file__).with_name("extremes.py"))
extremes = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(extremes)
EVERY = 97
"""Each so many of the cases; bench/fuzz_api.py has them all."""


@pytest.fixture
def asked(start):
    connection = http.client.HTTPConnection(start("x").url.removeprefix("http://"), timeout=60)

    def ask(method, path, body=None):
        connection.request(method, path, body, {"Content-Type": "application/json"})
        with connection.getresponse() as answer:
            return answer.status, answer.read()

    yield ask
    connection.close()


def test_no_extreme_value_is_more_than_a_bad_request(asked):
    document = json.loads(asked("GET", "/openapi.json")[1])
    statuses, wrong = set(), []
    for path, body in list(extremes.cases(document, "tiny"))[::EVERY]:
        status, answer = asked("POST", path, body)
        statuses.add(status)
        error = json.loads(answer).get("error") if status != 200 else None
        if status not in (200, 400, 404) or (error and isinstance(error, str) != path.startswith("/api/")):
            wrong.append((path, body[:200], status, answer[:200]))
    assert not wrong, wrong
    assert statuses >= {200, 400} and asked("GET", "/health")[0] == 200


def test_the_description_names_our_fields_and_our_errors(asked):
    document = json.loads(asked("GET", "/openapi.json")[1])
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert set(chat["responses"]) == {"200", "default"}
    assert set(chat["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    fields = document["components"]["schemas"]["ChatBody"]
    assert {"messages", "tools", "response_format", "thinking_budget"} <= set(fields["properties"])
    assert fields["required"] == ["messages"] and fields["additionalProperties"] is False
    assert not [path for path in document["paths"] if path.startswith("/page")]
