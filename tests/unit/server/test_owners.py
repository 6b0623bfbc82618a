"""What a key means to the engine: whose places, whose prefixes, how urgent; and room for each, whoever else comes."""

import json
import threading
import urllib.error
import urllib.request

import pytest

from smallpress.cli.serve import read_keys
from smallpress.engine.request import Request
from smallpress.run.errors import UserError
from smallpress.server.errors import ApiError
from smallpress.server.gate import Keys
from smallpress.server.worker import KEPT_FREE, Worker

KEYS = [("a", "a-key-of-enough-characters"), ("b", "b-key-of-enough-characters")]


def call(served, key, path="/v1/chat/completions", **fields):
    body = {"model": "tiny", "max_tokens": 2} | fields
    body |= {"prompt": "Hello"} if path == "/v1/completions" else {"messages": [{"role": "user", "content": "Hello"}]}
    head = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(served.url + path, json.dumps(body).encode(), head)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_each_key_has_places_and_a_salt_of_its_own_that_lasts(start, path):
    asked = []
    for _ in range(2):  # a restart
        served = start("ok", keys=KEYS)
        for _, key in KEYS:
            assert call(served, key, path)[0] == 200
        asked.append([(request.owner, request.salt) for request in served.engine.requests])
    assert asked[0] == asked[1] and [owner for owner, _ in asked[0]] == ["a", "b"]
    salts = {salt for _, salt in asked[0]}
    assert len(salts) == 2 and b"" not in salts
    assert all(key.encode() not in salt for salt in salts for _, key in KEYS)


def test_a_salt_is_made_of_the_key_and_not_of_its_name():
    def salt(name, key):
        return Keys([(name, key)]).owner(f"Bearer {key}").salt

    assert salt("a", KEYS[0][1]) == salt("b", KEYS[0][1]) != salt("a", KEYS[1][1])


def test_a_key_asks_for_the_priorities_it_may(start, tmp_path, monkeypatch):
    monkeypatch.delenv("SMALLPRESS_API_KEY", raising=False)
    file = tmp_path / "keys"
    file.write_text(f"a {KEYS[0][1]}\nb {KEYS[1][1]} -5\n")
    served = start("ok", keys=KEYS)
    owners = [read_keys(file).owner(f"Bearer {key}") for _, key in KEYS]
    assert [owner.foremost for owner in owners] == [0, -5]
    assert call(served, KEYS[0][1], priority=7)[0] == call(served, KEYS[0][1])[0] == 200
    assert [request.priority for request in served.engine.requests] == [7, 0]
    status, answer = call(served, KEYS[0][1], priority=-1)
    error = json.loads(answer)["error"]
    assert status == 400 and error["param"] == "priority" and "0 and above" in error["message"]
    for priority in (101, -101, 1.5, "1"):
        assert call(served, KEYS[0][1], priority=priority)[0] == 400


@pytest.mark.parametrize("word", ["high", "-", "1.5", "101", "--1", "\u0661"])
def test_a_priority_that_is_none_is_named_with_its_line(tmp_path, word):
    file = tmp_path / "keys"
    file.write_text(f"# a comment\na {KEYS[0][1]} {word}\n")
    with pytest.raises(UserError, match=r"line 2: the priority is"):
        read_keys(file)


class Full:
    """An engine that takes requests and never ends one."""

    busy = False

    def __init__(self):
        self.n = 0

    def submit(self, request):
        self.n += 1
        return self.n

    def cancel(self, request_id):
        return None

    def save(self):
        return False


def test_who_has_taken_all_the_room_has_not_taken_the_others_few_places():
    import asyncio

    async def fill():
        worker = Worker(Full(), max_live=20)
        for _ in range(20):
            worker.submit(Request((1,), owner="many"))
        with pytest.raises(ApiError, match="20 requests"):
            worker.submit(Request((1,), owner="many"))
        for _ in range(KEPT_FREE):
            worker.submit(Request((1,), owner="few"))
        with pytest.raises(ApiError, match="28 requests"):
            worker.submit(Request((1,), owner="few"))
        await asyncio.to_thread(worker.close)
        await asyncio.sleep(0)
        assert worker.n_live == 0 and not +worker._live_of

    asyncio.run(fill())


def test_an_idle_engine_goes_on_saving_until_nothing_waits():
    import asyncio

    class Saving(Full):
        n_left, done = 5, threading.Event()

        def save(self):
            self.n_left -= 1
            if self.n_left == 0:
                self.done.set()
            return self.n_left > 0

    async def idle():
        worker = Worker(Saving())
        assert await asyncio.to_thread(worker.engine.done.wait, 20)
        await asyncio.to_thread(worker.close)

    asyncio.run(idle())


def test_a_server_that_stops_saves_what_the_last_answers_left():
    import asyncio

    class Left(Full):
        busy, n_left = True, 4

        def step(self):
            threading.Event().wait(0.001)
            return []

        def save(self):
            self.n_left -= 1
            return self.n_left > 0

    async def stop():
        worker = Worker(Left())
        await asyncio.to_thread(worker.close)
        assert worker.engine.n_left == 0

    asyncio.run(stop())
