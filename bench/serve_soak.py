"""What a server must live through: `python bench/serve_soak.py`.

1. 1,000 streams at once, every one to its end.
2. 10,000 requests, each left by its client at a random moment or not at all: then no place is taken, the memory has
   grown by less than 5 % since the first tenth of them, and the next request is answered within a second.
3. 1,000 sockets that send a byte now and then and never a whole request: all closed within 15 seconds, while a good
   client is served.

Ends with 1 where one of these does not hold. All connections are to 127.0.0.1; Linux.
"""

import argparse
import asyncio
import random
import resource
import sys
import time
from statistics import median, quantiles

from serving.client import HOST, Heard, ask, chat_body
from serving.servers import Server, smallpress

HELLO = [{"role": "user", "content": "Hello! Tell me about the sea."}]
GROWTH, NEXT_SECONDS, SLOW_SECONDS = 0.05, 1.0, 15.0
AT_ONCE = 64  # clients that come and go
SLOW_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-Slow: "


class Proof:
    """Says each finding; remembers whether all held. `patience` widens the bounds, for small runs on busy machines."""

    def __init__(self, patience: float) -> None:
        self.held, self.patience = True, patience

    def __call__(self, holds: bool, what: str) -> None:
        self.held &= holds
        print(f"{'ok  ' if holds else 'NOT '} {what}", flush=True)


async def streams(server: Server, n: int, n_tokens: int, proof: Proof) -> None:
    began = time.perf_counter()
    bodies = [chat_body(HELLO, n_tokens, seed=i) for i in range(n)]
    answers = await asyncio.gather(*(ask(server.port, body) for body in bodies), return_exceptions=True)
    heard = [one for one in answers if isinstance(one, Heard)]
    n_whole = sum(one.whole for one in heard)
    seconds = time.perf_counter() - began
    proof(n_whole == n, f"{n_whole} of {n} streams at once came to their end in {seconds:.1f} s")
    for one in [*(one for one in heard if not one.whole), *(one for one in answers if isinstance(one, OSError))][:3]:
        print(f"     {one.body[:200] if isinstance(one, Heard) else one!r}")


async def aborts(server: Server, n: int, n_tokens: int, proof: Proof) -> None:
    rng, line = random.Random(1), iter(range(n))
    settled, statuses = 0, set[int]()

    async def clients() -> None:
        nonlocal settled
        for i in line:
            stay = rng.choice((None, 0.0, rng.expovariate(100), rng.expovariate(5)))
            body = chat_body(HELLO, rng.randrange(1, n_tokens), seed=i, stream=rng.random() < 0.7)
            heard = await ask(server.port, body, leave_after=stay)
            if heard.status:
                statuses.add(heard.status)
            if i == n // 10:
                settled = server.rss_bytes

    began = time.perf_counter()
    await asyncio.gather(*(clients() for _ in range(AT_ONCE)))
    seconds = time.perf_counter() - began
    proof(statuses == {200}, f"{n} requests, three quarters left at random, in {seconds:.0f} s; statuses {statuses}")
    patience = proof.patience
    deadline = time.perf_counter() + NEXT_SECONDS * patience
    while (busy := places(server)) and time.perf_counter() < deadline:
        await asyncio.sleep(0.02)
    proof(busy == 0, f"{busy:g} places are taken after them")
    began = time.perf_counter()
    answered = (await ask(server.port, chat_body(HELLO, 2))).whole
    seconds = time.perf_counter() - began
    proof(answered and seconds < NEXT_SECONDS * patience, f"the next request is answered in {seconds:.3f} s")
    growth = server.rss_bytes / settled - 1
    proof(growth < GROWTH * patience, f"memory has grown by {100 * growth:.1f} % to {server.rss_bytes / 1e6:.0f} MB")


def places(server: Server) -> float:
    return sum(map(server.metric, ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")))


async def slow_sockets(server: Server, n: int, proof: Proof) -> None:
    async def good(n_times: int) -> list[float]:
        return [(await ask(server.port, chat_body(HELLO, 4))).first for _ in range(n_times)]

    async def slow() -> float:
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection(HOST, server.port)
        writer.write(SLOW_HEAD)
        drip = asyncio.create_task(_drip(writer))
        try:
            async with asyncio.timeout(4 * SLOW_SECONDS):
                while await reader.read(4096):
                    pass
        except OSError:
            pass
        finally:
            drip.cancel()
            writer.transport.abort()
        return time.perf_counter() - began

    alone = await good(20)
    attack = asyncio.gather(*(slow() for _ in range(n)))
    besides: list[float] = []
    while not attack.done():
        besides += await good(1)
    closed = await attack
    proof(max(closed) <= SLOW_SECONDS * proof.patience, f"{n} slow sockets were closed within {max(closed):.1f} s")
    for name, values in (("alone", alone), ("beside them", besides)):
        p95 = quantiles(values, n=20)[18] if len(values) > 1 else values[0]
        print(f"     a good client {name}: first token after {median(values):.3f} s, p95 {p95:.3f} s")
    proof(bool(besides), f"{len(besides)} answers to the good client beside them")


async def _drip(writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():
        writer.write(b"x")
        await asyncio.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="what `smallpress serve` takes")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--slow", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=16, help="of an answer, at most")
    parser.add_argument("--patience", type=float, default=1.0, help="a factor on the bounds")
    asked = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    proof = Proof(asked.patience)
    with smallpress(f"model={asked.model}", "--context", "512") as server:
        if asked.streams:
            asyncio.run(streams(server, asked.streams, asked.tokens, proof))
        if asked.requests:
            asyncio.run(aborts(server, asked.requests, asked.tokens, proof))
        if asked.slow:
            asyncio.run(slow_sockets(server, asked.slow, proof))
        proof(server.process.poll() is None, "the server is still there")
    sys.exit(not proof.held)


if __name__ == "__main__":
    main()
