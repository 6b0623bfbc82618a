import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from smallpress.evaluate.endpoint import ask_endpoint, question
from smallpress.evaluate.result import Sampling
from smallpress.evaluate.store import AnswerStore
from smallpress.run.endpoint import Client, Endpoint
from smallpress.run.errors import UserError
from smallpress.tasks.example import Example

QUESTIONS = [Example(f"{i}", str(i), "f", 1, str(i), {}) for i in range(6)]
BUSY = (429, {"error": {"message": "slow down"}}, {"Retry-After": "0.01"})


def answer(text, **message):
    usage = {"completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 3}}
    return 200, {"choices": [{"message": {"content": text, **message}, "finish_reason": "stop"}], "usage": usage}, {}


@pytest.fixture
def serving():
    """Start a server that answers `says(body, how often asked before)`; it keeps what it was asked."""
    servers = []

    def start(says):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server.lock:
                    server.asked.append((self.path, self.headers.get("Authorization"), body))
                    server.clients.add(self.client_address)
                    n = sum(one[2] == body for one in server.asked)
                status, value, headers = says(body, n - 1)
                if status is None:
                    self.close_connection = True
                    return
                data = json.dumps(value).encode()
                self.send_response(status)
                for name, text in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, text)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads, server.lock, server.asked, server.clients = True, threading.Lock(), [], set()
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server, Endpoint(f"http://127.0.0.1:{server.server_port}/v1/", "key", n_at_once=2, first_wait=0.001)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def content(body):
    return body["messages"][0]["content"]


def test_every_question_is_asked_over_few_connections_that_stay_open(serving):
    server, endpoint = serving(lambda body, _: answer(content(body), reasoning_content="hm"))
    answered = ask_endpoint(Client(endpoint), "m", QUESTIONS, Sampling(samples=2, temperature=0.6, max_tokens=9))
    assert [[said.text for said in row] for row in answered.said] == [[f"<think>hm</think>{i}"] * 2 for i in range(6)]
    assert (answered.said[0][0].n_tokens, answered.said[0][0].n_thinking) == (7, 3)
    path, key, body = server.asked[0]
    assert (path, key, body["max_tokens"], body["temperature"]) == ("/v1/chat/completions", "Bearer key", 9, 0.6)
    assert len({body["seed"] for _, _, body in server.asked}) == 12 and len(server.clients) == 2


def test_a_busy_server_a_failing_one_and_a_broken_line_are_asked_again(serving):
    faults = [BUSY, (503, {}, {}), (None, {}, {})]
    _, endpoint = serving(lambda body, n: faults[n] if n < len(faults) else answer(content(body)))
    answered = ask_endpoint(Client(endpoint), "m", QUESTIONS[:2], Sampling())
    assert [row[0].text for row in answered.said] == ["0", "1"]


def test_a_refusal_is_the_users_error_at_once_and_what_was_answered_is_kept(serving, tmp_path):
    def says(body, _):
        return (401, {"error": {"message": "no such key"}}, {}) if content(body) == "3" else answer(content(body))

    server, endpoint = serving(says)
    endpoint = replace(endpoint, n_at_once=1)
    with AnswerStore(tmp_path / "a", "m") as store:
        with pytest.raises(UserError, match="answers 401: no such key"):
            ask_endpoint(Client(endpoint), "m", QUESTIONS, Sampling(), store=store)
        assert len(store) == 3 and len(server.asked) == 4


def test_answers_of_another_form_and_addresses_that_are_none(serving):
    _, endpoint = serving(lambda *_: (200, {"answer": 1}, {}))
    with pytest.raises(UserError, match="no chat completion of OpenAI's form"):
        ask_endpoint(Client(endpoint), "m", QUESTIONS[:1], Sampling())
    for url in ("ftp://a", "nonsense", "http://", "http://a:b", "http://u:p@a/v1"):
        with pytest.raises(UserError, match="is no address"):
            Endpoint(url)


def test_the_thinking_budget_is_sent():
    assert question("m", QUESTIONS[0], 0, Sampling(thinking=5))["thinking_budget"] == 5
