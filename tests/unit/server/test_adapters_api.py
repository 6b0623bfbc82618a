"""Adapters as models of their own: named, listed under their base, run by its engine, and paid for by their tokens."""

import json
import urllib.request
from types import SimpleNamespace

import pytest

from smallpress.cli.serve import open_adapters
from smallpress.run.errors import UserError
from smallpress.server.generation import Usage
from smallpress.server.meter import Meter, Rates

HELLO = [{"role": "user", "content": "x"}]


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.loads(answer.read())


def test_an_adapter_is_listed_under_its_model_and_asked_by_its_name(start):
    served = start("abc", adapters=("math", "style"))
    listed = {model["id"]: (model["root"], model["parent"]) for model in get(served.url + "/v1/models")["data"]}
    assert listed == {"tiny": ("tiny", None), "math": ("runs/math", "tiny"), "style": ("runs/style", "tiny")}
    for name in ("style", "tiny", "math"):
        done = served.client().chat.completions.create(model=name, messages=HELLO)
        assert (done.model, done.choices[0].message.content) == (name, "abc")
    assert [request.adapter for request in served.engine.requests] == [2, 0, 1]
    assert len(served.engine.adapters) == 2
    assert {row["model"] for row in get(served.url + "/usage")["rows"]} == {"tiny", "math", "style"}
    assert list(get(served.url + "/usage")["models"]) == ["tiny"], "there is one engine"


def test_the_time_of_an_engine_is_shared_out_over_its_adapters():
    """An hour at 3: a third of the computed tokens are the model's own, two thirds the adapter's."""
    meter = Meter(Rates(machine_hour=3.0), base_of={"math": "tiny"})
    meter.charge("me", "tiny", Usage(n_prompt=50, n_new=50))
    meter.charge("me", "math", Usage(n_prompt=150, n_new=50))
    report = meter.report({"tiny": 3600.0})
    assert {row["model"]: row["cost"] for row in report["rows"]} == pytest.approx({"math": 2.0, "tiny": 1.0})
    assert report["models"]["tiny"]["completion_tokens_per_second"] == round(100 / 3600, 2)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("math", "has no name or no folder"),
        ("=folder", "has no name or no folder"),
        ("math=nowhere", "math is of one of several models"),
        ("c:math=nowhere", "is of c, which is not served"),
        ("a:math=nowhere", "nowhere is not on this machine"),
        ("a:math=org/nowhere", "org/nowhere is not on this machine"),
    ],
)
def test_an_adapter_that_is_nowhere_or_nobodys_is_refused(start, word, says):
    models = [(model, SimpleNamespace(config=None)) for model in start("abc", names=("a", "b")).models]
    with pytest.raises(UserError, match=says):
        open_adapters([word], models)
