"""A model behind HTTP: asked again where that helps, given up where it does not, paced, and its cost counted."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from smallpress.run.endpoint import Client, Endpoint, Pacer
from smallpress.run.errors import UserError


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


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self):
        self.now, self.sleeps = 100.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.sleeps.append(seconds)


def client(server, clock=None, **given):
    clock = clock or Clock()
    given = {"n_at_once": 1, "n_tries": 4} | given
    return Client(Endpoint(f"http://127.0.0.1:{server.server_port}/v1", **given), clock.sleep, clock)


def asked(*texts):
    return [{"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": text}]} for text in texts]


def test_many_questions_are_answered(server):
    found = dict(client(server, n_at_once=3, api_key="secret").replies(asked(*"abcdefg")))
    assert {place: reply.text for place, reply in found.items()} == {i: f"{c}!" for i, c in enumerate("abcdefg")}
    assert (found[0].prompt_tokens, found[0].completion_tokens) == (10, 5)
    path, key, body = server.seen[0]
    assert (path, key, body["max_tokens"], body["model"]) == ("/v1/chat/completions", "Bearer secret", 9, "m")


def test_what_may_go_away_is_waited_out(server):
    server.script = [(429, {}), (503, {}), (200, {"choices": []}), (200, completion("4", reasoning_content="hm"))]
    clock = Clock()
    ((_, reply),) = client(server, clock).replies(asked("a"))
    assert (reply.text, reply.thinking, clock.sleeps) == (
        "4",
        "hm",
        [7.0, 2.0, 4.0],
    )  # Retry-After, then doubled pauses


def test_what_stays_ends_the_run_with_one_line(server):
    server.script = [(503, {})] * 4
    with pytest.raises(UserError, match=r"it answers 503: .*; go on later"):
        list(client(server).replies(asked("a")))
    server.script = [(401, {"error": "no such key"})]
    with pytest.raises(UserError, match=r"answers 401: no such key; put a valid key into OPENAI_API_KEY"):
        list(client(server).replies(asked("a")))
    server.script = [(302, {})]
    with pytest.raises(UserError, match="answers 302"):
        list(client(server).replies(asked("a")))
    assert len(server.seen) == 6 and all(path == "/v1/chat/completions" for path, *_ in server.seen)


def test_requests_are_spaced_evenly():
    now, sleeps = [100.0], []
    pacer = Pacer(30, clock=lambda: now[0])
    for _ in range(3):
        pacer.wait(sleeps.append)
    now[0] += 60
    pacer.wait(sleeps.append)
    assert sleeps == [2.0, 4.0]
    pacer.hold(9)
    pacer.wait(sleeps.append)
    assert sleeps[2:] == [9.0]


def test_an_address_that_is_none_is_refused():
    with pytest.raises(UserError, match="file:///etc/passwd is no address"):
        Endpoint("file:///etc/passwd")


@pytest.mark.parametrize("late", [False, True])
def test_leaving_hangs_up(monkeypatch, late):
    """One is refused; the other is never answered, and leaving does not wait for it, nor for one yet to connect."""
    answered, left = threading.Event(), threading.Event()
    post = Client._post

    def slow_post(self, connection, body):
        if late and b"wait" in body:
            time.sleep(0.5)
        return post(self, connection, body)

    monkeypatch.setattr(Client, "_post", slow_post)

    class Slow(Handler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            if b"wait" in self.rfile.read(length):
                answered.wait(10)
                left.set() if not self.connection.recv(1) else None
                return
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()
            answered.set()

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with pytest.raises(UserError, match="answers 401"):
            list(client(server, n_at_once=2).replies(asked("wait", "refuse")))
        assert late or left.wait(10)  # what connects late may be cut off before it has asked
        server.shutdown()
