"""A teacher behind HTTP: asked again where that helps, given up where it does not, paced, and its cost counted."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from smallpress.run.errors import UserError
from smallpress.train.distill_settings import Endpoint
from smallpress.train.endpoint import Client, Pacer


def completion(text, **message):
    return {
        "choices": [{"message": {"content": text, **message}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    }


class Server(ThreadingHTTPServer):
    """Answers each question with what its script says, in order; echoes where the script has ended."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.seen, self.lock = [], [], threading.Lock()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append((self.path, self.headers.get("Authorization"), body))
            status, answer = self.server.script.pop(0) if self.server.script else (200, None)
        data = json.dumps(completion(body["messages"][-1]["content"] + "!") if answer is None else answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "7")
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def client(server, sleeps=None, **given):
    given = {"model": "m", "concurrency": 1, "retries": 3} | given
    url = f"http://127.0.0.1:{server.server_port}/v1"
    return Client(Endpoint(**given), url, sleep=(sleeps if sleeps is not None else []).append)


def asked(*texts):
    return [[{"role": "user", "content": text}] for text in texts]


def test_many_questions_are_answered_and_paid_for(server, monkeypatch):
    monkeypatch.setenv("KEY", "secret")
    teacher = client(server, concurrency=3, key_env="KEY", price_in=2.0, price_out=4.0)
    found = {place: reply.text for place, reply in teacher.answers(asked(*"abcdefg"), max_tokens=9)}
    assert found == {i: f"{text}!" for i, text in enumerate("abcdefg")}
    assert teacher.bill.cost == pytest.approx(7 * (10 * 2 + 5 * 4) / 1e6) and teacher.bill.completion_tokens == 35
    path, key, body = server.seen[0]
    assert (path, key, body["max_tokens"], body["model"]) == ("/v1/chat/completions", "Bearer secret", 9, "m")


def test_what_may_go_away_is_waited_out(server):
    server.script = [(429, {}), (503, {}), (200, {"choices": []}), (200, completion("4", reasoning_content="hm"))]
    sleeps = []
    ((_, reply),) = client(server, sleeps).answers(asked("a"))
    assert (reply.text, reply.thinking, sleeps) == ("4", "hm", [7.0, 2.0, 4.0])  # Retry-After, then doubled pauses


def test_what_stays_ends_the_run_with_one_line(server):
    server.script = [(503, {})] * 4
    with pytest.raises(UserError, match="the server answers 503; go on later with: smallpress resume"):
        list(client(server).answers(asked("a")))
    server.script = [(401, {"error": "no such key"})]
    with pytest.raises(UserError, match=r"refuses \(401\).*no such key.*OPENAI_API_KEY"):
        list(client(server).answers(asked("a")))
    server.script = [(302, {})]
    with pytest.raises(UserError, match=r"refuses \(302\)"):
        list(client(server).answers(asked("a")))
    assert len(server.seen) == 6 and all(path == "/v1/chat/completions" for path, *_ in server.seen)


def test_the_money_ends_the_asking(server):
    teacher = client(server, price_out=1e6, max_cost=12.0)  # each answer costs 5
    got = []
    with pytest.raises(UserError, match=r"15 is spent, and endpoint\.max_cost is 12"):
        got += [place for place, _ in _taken(teacher.answers(asked(*"abcdefg")), got)]
    assert got == [0, 1, 2]


def _taken(answers, got):
    for place, reply in answers:
        got.append(place)
        yield place, reply


def test_requests_are_spaced_evenly():
    now, sleeps = [100.0], []
    pacer = Pacer(30, clock=lambda: now[0], sleep=sleeps.append)
    for _ in range(3):
        pacer.wait()
    now[0] += 60
    pacer.wait()
    assert sleeps == [2.0, 4.0]


def test_an_address_that_is_none_is_refused(server):
    with pytest.raises(UserError, match="file:///etc/passwd is no address"):
        Client(Endpoint(), "file:///etc/passwd")
