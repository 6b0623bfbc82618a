"""What was used and what it costs, with numbers one can work out on paper."""

import json
import urllib.request

import pytest

from smallpress.cli.serve import read_accounts
from smallpress.run.errors import UserError
from smallpress.server.generation import Usage
from smallpress.server.ledger import Ledger
from smallpress.server.meter import Meter, Rates

KEYS = [("me", "a-key-of-enough-characters"), ("you", "another-key-of-enough-characters"), ("admin", "k" * 20)]


def used(rates: Rates) -> Meter:
    meter = Meter(rates)
    meter.charge("me", "tiny", Usage(n_prompt=200, n_hit=100, n_new=200, n_thinking=50))
    meter.charge("you", "tiny", Usage(n_prompt=100, n_hit=0, n_new=500))
    meter.charge("you", "tiny", Usage(n_prompt=100))  # ended before its first token
    return meter


def test_tokens_are_counted_by_key_and_model():
    rows = used(Rates()).report({"tiny": 1.0})["rows"]
    assert [(row["key"], row["tokens"]["requests"]) for row in rows] == [("me", 1), ("you", 1)]
    assert rows[0]["tokens"] == {"requests": 1, "prompt_cache_hit_tokens": 100, "prompt_cache_miss_tokens": 100,
                                 "completion_tokens": 200, "reasoning_tokens": 50}  # fmt: skip


def test_a_price_by_the_token_knows_hit_miss_and_out():
    rows = used(Rates(hit=1.0, miss=10.0, out=100.0)).report({"tiny": 5.0})["rows"]
    assert rows[0]["cost"] == pytest.approx((100 * 1 + 100 * 10 + 200 * 100) / 1e6)


def test_a_price_by_the_hour_is_shared_by_what_was_computed():
    """Half an hour at 2: me has 300 of 900 computed tokens, you the other 600. 700 new tokens in 1800 s."""
    report = used(Rates(machine_hour=2.0, watts=60)).report({"tiny": 1800.0})
    assert [row["cost"] for row in report["rows"]] == pytest.approx([1 / 3, 2 / 3])
    assert [row["kwh"] for row in report["rows"]] == pytest.approx([0.01, 0.02])  # 60 W for half an hour
    assert report["models"]["tiny"]["completion_tokens_per_second"] == round(700 / 1800, 2)
    expected = 1e6 / (700 / 1800) / 3600 * 2.0
    assert report["models"]["tiny"]["machine_cost_per_million_completion_tokens"] == pytest.approx(expected)
    assert report["models"]["tiny"]["kwh_per_million_completion_tokens"] == pytest.approx(expected / 2.0 * 0.06)


def test_a_key_sees_its_own_rows_and_admin_all(start):
    served = start("abc", keys=KEYS)
    for _, key in KEYS[:2]:
        served.client(key).chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}])

    def rows(key):
        request = urllib.request.Request(served.url + "/usage", headers={"Authorization": f"Bearer {key}"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return [row["key"] for row in json.loads(answer.read())["rows"]]

    assert [rows(key) for _, key in KEYS] == [["me"], ["you"], ["me", "you"]]


def test_a_stream_left_in_the_middle_is_charged_for_what_it_took(start, wait_until):
    served = start("x" * 5000)
    stream = served.client().chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "x"}], stream=True, max_tokens=4000
    )
    next(iter(stream))
    stream.close()

    def charged() -> bool:
        with urllib.request.urlopen(served.url + "/usage", timeout=120) as answer:
            rows = json.loads(answer.read())["rows"]
        return bool(rows) and 0 < rows[0]["tokens"]["completion_tokens"] <= 4000

    wait_until(charged)


def test_a_model_has_rates_of_its_own():
    meter = Meter(Rates(out=1.0), {"tiny": Rates(out=100.0)})
    meter.charge("me", "tiny", Usage(n_prompt=1, n_new=10_000))
    meter.charge("me", "other", Usage(n_prompt=1, n_new=10_000))
    report = meter.report({})
    assert [(row["model"], row["cost"]) for row in report["rows"]] == [("other", 0.01), ("tiny", 1.0)]
    assert report["rates_by_model"]["tiny"]["out"] == 100.0 and report["rates"]["out"] == 1.0


def test_what_was_used_outlives_the_server(tmp_path):
    """Two servers' lives of 10 and 5 busy seconds on one ledger, beside a third that shares it."""
    seconds = {"tiny": 0.0}
    for busy in (10.0, 5.0):
        ledger = Ledger(tmp_path / "state")
        meter = Meter(Rates(machine_hour=3600.0), ledger=ledger, busy_seconds=lambda: dict(seconds))
        seconds["tiny"] = busy / 2
        meter.charge("me", "tiny", Usage(n_prompt=20, n_hit=10, n_new=5, n_thinking=2))
        seconds["tiny"] = busy
        meter.charge("me", "tiny", Usage(n_prompt=20, n_hit=10, n_new=5, n_thinking=2))
        report = meter.report(seconds)
        ledger.close()
    tokens = report["rows"][0]["tokens"]
    assert list(tokens.values()) == [4, 40, 40, 20, 8]
    assert report["rows"][0]["cost"] == 15.0 and report["models"]["tiny"]["busy_seconds"] == 15.0
    first, second = (Ledger(tmp_path / "state") for _ in range(2))
    assert first.since == report["since"]
    for ledger in (first, second):
        ledger.add("me", "tiny", [1, 0, 0, 1, 0], 0.0)
        ledger.close()
    again = Ledger(tmp_path / "state")
    again.close()
    assert again.used == {("me", "tiny"): (6, 40, 40, 22, 8)} and again.busy == {"tiny": 15.0}


def test_a_ledger_that_cannot_be_used_is_one_line(tmp_path, capsys):
    (tmp_path / "usage.sqlite3").write_bytes(b"no ledger at all" * 100)
    with pytest.raises(UserError, match="cannot be used"):
        Ledger(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="file"):
        Ledger(tmp_path / "file" / "state")
    ledger = Ledger(tmp_path / "other")
    ledger.close()
    ledger.add("me", "tiny", [1, 0, 0, 1, 0], 0.0)  # as where the disk is full: said, and the request goes on
    assert "has not taken a charge of me" in capsys.readouterr().err


def test_the_rate_card_is_read_from_the_command_line():
    accounts = read_accounts(["currency=EUR", "hit=1", "org/a:b:out=2"], ["org/a:b"], None)
    assert accounts.rates == Rates(currency="EUR", hit=1) and accounts.by_model == {
        "org/a:b": Rates(currency="EUR", out=2)
    }
    assert read_accounts([], ["a"], None, watts=28.0).rates.watts == 28.0
    assert read_accounts(["watts=5", "a:out=1"], ["a"], None, watts=28.0).by_model["a"].watts == 5.0
    for words in (["c:out=1"], ["org/a:b:currency=EUR"], ["org/a:b:watts=5"], ["org/a:b:in=1"]):
        with pytest.raises(UserError):
            read_accounts(words, ["org/a:b"], None)
