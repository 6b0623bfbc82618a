"""How much sooner a second turn starts where the first is kept: `python bench/prefix_cache.py`.

Conversations of about 4,000 tokens, all different, each asked once (computed), asked on (found in memory), and asked on
after a restart of the server (found on disk). Seconds to the first token, medians, and the ratios to the computed one.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path
from statistics import median

from serving.client import Heard, ask, chat_body
from serving.servers import Server, smallpress

NAMES = ("Ada", "Bo", "Chen", "Dora", "Emil", "Fatima", "Goran", "Hana")
OUT = 16


def conversation(rng: random.Random, n_lines: int) -> list[dict[str, str]]:
    lines = [f"{rng.choice(NAMES)} has {rng.randrange(10, 99)} books and a red pen." for _ in range(n_lines)]
    return [{"role": "user", "content": "\n".join(lines) + "\nWho has most?"}]


def heard(server: Server, messages: list[dict[str, str]]) -> Heard:
    one = asyncio.run(ask(server.port, chat_body(messages, OUT)))
    if not one.whole:
        raise SystemExit(f"an answer did not come: {one.body[:300]!r}")
    return one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="what `smallpress serve` takes")
    parser.add_argument("--lines", type=int, default=310, help="of about 13 tokens each")
    parser.add_argument("--conversations", type=int, default=5)
    parser.add_argument("--at-least", type=float, default=10.0, help="the ratio below which this fails")
    asked = parser.parse_args()
    rng = random.Random(0)
    firsts: dict[str, list[Heard]] = {"computed": [], "in memory": [], "on disk": []}
    with tempfile.TemporaryDirectory() as folder:
        options = ("--cache", str(Path(folder) / "prefixes"), "--cache-size", "4")
        talks = [conversation(rng, asked.lines) for _ in range(asked.conversations)]
        with smallpress(f"model={asked.model}", *options) as server:
            heard(server, conversation(rng, 2))
            for talk in talks:
                firsts["computed"].append(heard(server, talk))
                talk.append({"role": "assistant", "content": firsts["computed"][-1].text})
                firsts["in memory"].append(heard(server, [*talk, {"role": "user", "content": "Are you sure?"}]))
        with smallpress(f"model={asked.model}", *options) as server:
            heard(server, conversation(rng, 2))
            for talk in talks:
                firsts["on disk"].append(heard(server, [*talk, {"role": "user", "content": "Who has fewest?"}]))
    computed = median(one.first for one in firsts["computed"])
    print(f"{'':12}{'first token, ms':>16}{'ratio':>8}{'tokens found':>14}")
    ratios = []
    for name, many in firsts.items():
        seconds = median(one.first for one in many)
        ratios.append(computed / seconds)
        print(f"{name:12}{1000 * seconds:16.0f}{ratios[-1]:8.1f}{median(one.n_cached for one in many):14.0f}")
    sys.exit(min(ratios[1:]) < asked.at_least)


if __name__ == "__main__":
    main()
