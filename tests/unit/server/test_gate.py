"""Who is let in, how much may come, and what happens to connections that only take up room."""

import http.client
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from smallpress.run.errors import UserError
from smallpress.server.gate import Keys, depth
from smallpress.server.limits import Limits
from smallpress.server.listen import bound_socket

KEY = "a-key-of-enough-characters"
HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)
QUICK = Limits(head_seconds=0.3, body_seconds=0.3, stalled_seconds=0.3, idle_seconds=1)


def call(served, path="/v1/chat/completions", body=HELLO, headers=()):
    """(status, answer) of one request; `body` None is a GET, bytes are sent as they are."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    head = {"Content-Type": "application/json"} | dict(headers)
    request = urllib.request.Request(served.url + path, data, head)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def code_of(answer):
    return json.loads(answer)["error"]["code"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "attacker.example"}, 403),
        ({"Host": "127.0.0.1.attacker.example"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://attacker.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "file://"}, 403),
        ({"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
        ({"Host": "localhost:8000", "Origin": "http://localhost:9000"}, 403),
    ],
    ids=str,
)
def test_only_this_machines_names_and_pages_are_answered(start, headers, status):
    assert call(start("ok"), headers=headers)[0] == status


def test_a_key_opens_everything_but_health_and_the_page(start):
    served = start("ok", keys=[("me", KEY), ("you", KEY + "2")])
    for path in ("/health", "/livez", "/ping"):
        assert call(served, path, None)[0] == 200
    for path in ("/v1/models", "/metrics", "/openapi.json", "/version", "/no-such-path"):
        assert call(served, path, None)[0] == 401
    for wrong in ("", KEY, f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer ", "Bearer \xff"):
        status, answer = call(served, headers={"Authorization": wrong})
        assert status == 401 and code_of(answer) == "invalid_api_key", wrong
    for right in (f"Bearer {KEY}", f"bearer {KEY}2"):
        assert call(served, headers={"Authorization": right})[0] == 200


def test_answers_on_a_connection_that_is_kept_wait_for_no_acknowledgement(start):
    served = start("ok")
    connection = http.client.HTTPConnection(served.url.removeprefix("http://"), timeout=30)
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        connection.request("GET", "/v1/models")
        connection.getresponse().read()
        seconds.append(time.perf_counter() - began)
    connection.close()
    assert min(seconds[4:]) < 0.03, seconds  # the client's kernel acknowledges after 40 ms


def test_keys_are_not_kept():
    assert KEY not in repr(vars(Keys([("me", KEY)])))


def test_others_come_in_with_a_key_or_not_at_all():
    with pytest.raises(UserError, match=r"0\.0\.0\.0 can be reached by others"):
        bound_socket("0.0.0.0", 0, Keys([]))
    bound_socket("0.0.0.0", 0, Keys([("me", KEY)])).close()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"", 400),
        (b"[]", 400),
        (b"null", 400),
        (b"\xff\xfe", 400),
        (b'{"messages": ' + b"[" * 65 + b"]" * 65 + b"}", 400),
        (b'{"model": "tiny", "messages": "' + b"[" * 100 + b'"}', 400),
        (b'{"x": "' + b"a" * 3_000_000 + b'"}', 413),
        (b'{"max_tokens": ' + b"9" * 5000 + b"}", 400),
        (b'{"model": "\\ud800", "messages": [{"role": "user", "content": "a"}]}', 404),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "\\ud800": 1}', 400),
    ],
    ids=range(11),
)
def test_bodies_that_are_wrong_are_said_to_be(start, body, status):
    got, answer = call(start("ok"), body=body)
    assert got == status and set(json.loads(answer)["error"]) == {"message", "type", "param", "code"}


NUMBERS = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "n", "presence_penalty", "top_logprobs",
           "frequency_penalty", "thinking_budget", "soft_thinking_budget", "max_completion_tokens")  # fmt: skip


def test_extreme_numbers_never_break_the_server(start):
    served = start("ok")
    values = [
        "-1",
        "0",
        "1",
        "NaN",
        "1e309",
        "-1e309",
        '"5"',
        "null",
        "2147483648",
        "1e-300",
        "-0.0",
        "true",
        "[]",
        "1.5",
    ]
    text = json.dumps(HELLO)[:-1]
    for name in NUMBERS:
        for value in values:
            status, _ = call(served, body=f'{text}, "{name}": {value}}}'.encode())
            assert status in (200, 400), (name, value, status)
    assert call(served)[0] == 200


def test_depth_counts_brackets_outside_texts():
    assert depth(b'{"a\\"[[[[": [[1]]}', 64) == 3
    assert depth(b"[" * 1_000_000, 64) == 65


def raw(served):
    host, _, port = served.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def test_a_head_that_never_ends_is_closed_and_others_are_answered(start):
    served = start("ok", limits=QUICK)
    slow = [raw(served) for _ in range(50)]
    for connection in slow:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
    assert call(served)[0] == 200
    for connection in slow:
        assert _closed(connection)


def test_a_second_head_that_never_ends_is_closed_too(start):
    served = start("ok", limits=QUICK)
    connection = raw(served)
    connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"200" in connection.recv(4096)
    connection.sendall(b"GET /livez HTTP/1.1\r\nHost")
    assert _closed(connection)


def test_a_body_that_never_comes_is_a_408(start):
    connection = raw(start("ok", limits=QUICK))
    connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    assert b" 408 " in connection.recv(4096)
    connection.close()


def _closed(connection) -> bool:
    """Whether the other side ends the connection, within the socket's patience."""
    with connection:
        try:
            while connection.recv(65536):
                pass
        except ConnectionError:
            pass
        return True


def test_a_client_that_reads_nothing_is_let_go(start, wait_until):
    served = start(lambda _: "x" * 5000, limits=QUICK)
    connection = raw(served)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    body = json.dumps(HELLO | {"stream": True, "max_tokens": 4000}).encode()
    connection.sendall(HEAD % len(body) + body)
    wait_until(lambda: served.engine.requests and not served.engine.live)
    wait_until(lambda: served.models.get("tiny").worker.n_live == 0)
    connection.close()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place(start, wait_until, stream):
    served = start(lambda _: "x" * 5000)
    served.engine.may_step.clear()
    connection = raw(served)
    body = json.dumps(HELLO | {"stream": stream, "max_tokens": 4000, "n": 3}).encode()
    connection.sendall(HEAD % len(body) + body)
    wait_until(lambda: len(served.engine.live) >= 1)
    connection.close()
    served.engine.may_step.set()
    worker = served.models.get("tiny").worker
    wait_until(lambda: worker.n_live == 0 and not served.engine.live)


def test_more_requests_than_there_is_room_for_are_a_429(start):
    served = start(lambda _: "x" * 5000, limits=Limits(live=2))
    served.engine.may_step.clear()
    pool = ThreadPoolExecutor(3)
    answers = [pool.submit(call, served, body=HELLO | {"max_tokens": 3}) for _ in range(3)]
    first = next(answer for answer in _as_done(answers))
    assert first[0] == 429 and code_of(first[1]) == "queue_full"
    served.engine.may_step.set()
    assert sorted(answer.result()[0] for answer in answers) == [200, 200, 429]
    pool.shutdown()


def test_one_key_cannot_take_every_place(start):
    served = start(lambda _: "x" * 5000, keys=[("me", KEY), ("you", KEY + "2")], limits=Limits(live_per_key=1))
    served.engine.may_step.clear()
    mine = {"Authorization": f"Bearer {KEY}"}
    pool = ThreadPoolExecutor(3)
    answers = [pool.submit(call, served, body=HELLO | {"max_tokens": 3}, headers=mine) for _ in range(2)]
    assert next(_as_done(answers))[0] == 429
    served.engine.may_step.set()
    assert call(served, headers={"Authorization": f"Bearer {KEY}2"})[0] == 200
    pool.shutdown()


def test_a_place_is_taken_before_the_body_has_come(start):
    served = start("abc", keys=[("me", KEY)], limits=Limits(live_per_key=1))
    mine = {"Authorization": f"Bearer {KEY}"}
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
    port = int(served.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 900\r\n\r\n{{".encode())
        deadline = time.monotonic() + 20
        while (status := call(served, headers=mine)[0]) == 200 and time.monotonic() < deadline:
            pass
        assert status == 429
    while (status := call(served, headers=mine)[0]) == 429 and time.monotonic() < deadline:
        pass
    assert status == 200


def _as_done(answers):
    from concurrent.futures import as_completed

    return (answer.result() for answer in as_completed(answers, timeout=30))


def test_a_step_without_numbers_fails_its_requests_and_no_others(start):
    served = start(lambda _: "abc")
    served.engine.fault = UserError("the model gives NaN", "fetch it again")
    status, answer = call(served)
    assert status == 500 and "NaN" in json.loads(answer)["error"]["message"]
    assert call(served)[0] == 200 and call(served, "/health", None)[0] == 200


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_fails_for_good_says_so(start):
    served = start(lambda _: "abc")
    served.engine.fault = RuntimeError("a fault of ours")
    assert call(served)[0] == 500
    assert call(served)[0] == 503 and call(served, "/health", None) == (503, b'{"status":"failed"}')


def test_while_loading_health_and_questions_are_503(start, wait_until):
    loads = threading.Event()
    served = start("ok", wait=False, slow=loads)
    wait_until(lambda: _listens(served))
    assert call(served, "/health", None) == (503, b'{"status":"loading"}')
    status, answer = call(served)
    assert status == 503 and code_of(answer) == "loading"
    assert call(served, "/v1/models", None)[0] == 200
    loads.set()
    wait_until(lambda: served.models.state == "ok")
    assert call(served)[0] == 200


def _listens(served) -> bool:
    try:
        return call(served, "/livez", None)[0] == 200
    except OSError:
        return False


def test_ending_gives_streams_their_time_and_no_more(start):
    served = start(lambda _: "x" * 5000)
    served.engine.may_step.clear()
    pool = ThreadPoolExecutor(1)
    answer = pool.submit(call, served, body=HELLO | {"max_tokens": 2000, "stream": True})
    while not served.engine.live:
        time.sleep(0.01)
    served.engine.may_step.set()
    began = time.monotonic()
    served.stop()
    assert b"[DONE]" in answer.result()[1] and time.monotonic() - began < 15
    pool.shutdown()
