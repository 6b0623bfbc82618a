"""What long commands say of themselves before and after."""

import io
from dataclasses import replace

import pytest

from smallpress.cli.foresight import PEAK, ROUGH, announce, beside, foresee_learning, together
from smallpress.planner.model import from_numbers
from smallpress.run.errors import UserError

ASKED = {"n_tokens": 1e6, "batch_tokens": 4096, "seq_len": 256, "dtype": "float32"}


@pytest.fixture(autouse=True)
def empty_store(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLPRESS_HOME", str(tmp_path))


def test_a_run_that_fits_says_memory_time_and_that_it_is_a_guess():
    plan, said = foresee_learning("sft", "tiny", from_numbers("dim=64,layers=2"), ASKED), io.StringIO()
    announce(plan, said)
    assert said.getvalue().startswith("plan: ") and "kWh" in said.getvalue() and ROUGH in said.getvalue()


def test_a_run_that_cannot_fit_is_refused_with_remedies():
    plan = foresee_learning("pretrain", "huge", from_numbers("dim=16384,layers=400"), ASKED)
    with pytest.raises(UserError, match="pretrain needs") as refused:
        announce(plan, io.StringIO())
    assert refused.value.remedy.count("; or ") == 2


def test_plan_and_measured_stand_beside_each_other():
    plan = foresee_learning("sft", "tiny", from_numbers("dim=64,layers=2"), ASKED)
    seconds = plan.figures["seconds a step"]
    shown = beside(plan, {"seconds a step": 2 * seconds, PEAK: plan.peak_memory, "unknown": 1.0})
    first, second, third = shown.splitlines()
    assert first.split() == ["plan", "measured", "ratio"]
    assert second.endswith("0.50") and third.startswith(PEAK) and third.endswith("1.00")


def test_servers_whose_full_caches_are_more_than_there_is_are_told_and_those_whose_weights_are_are_refused():
    plan = replace(foresee_learning("serve", "a", from_numbers("dim=64,layers=2"), ASKED), room=10.0)
    small = replace(plan, memory={"program": 1.0, "weights": 3.0, "KV cache": 4.0})
    both, said = together([small, small]), io.StringIO()
    announce(both, said)
    assert dict(both.memory) == {"program": 1.0, "weights": 6.0, "KV cache": 3.0} and "--context" in said.getvalue()
    with pytest.raises(UserError, match="serve needs"):
        announce(together([small, small, small, small]))
