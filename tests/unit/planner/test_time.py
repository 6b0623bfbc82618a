"""Time: rooflines, lengths, steps, with round numbers."""

import pytest

from smallpress.planner.grpo import Rehearsed, plan_grpo
from smallpress.planner.learning import Learned, plan_learning
from smallpress.planner.lengths import Lengths, all_of, spread_out
from smallpress.planner.machine import SHARES, Machine
from smallpress.planner.model import Planned, from_numbers
from smallpress.planner.place import catalogued
from smallpress.planner.rates import ARITHMETIC, MEMORY, Roofline
from smallpress.planner.work import Generating, n_products, n_weights_read

CHIP = Machine(
    title="chip", kind="graphics", memory=24, bandwidth=1000, peaks={"bfloat16": 100, "int8": 200}, watts=100, price=2,
    source="round numbers",
)  # fmt: skip
CONFIG = from_numbers("dim=1024,layers=10,inter=4096,heads=16,kv_heads=4,head_dim=64,vocab=32000")
PLANNED = Planned("it", CONFIG, {})


def test_one_row_waits_for_memory_and_many_for_arithmetic():
    rates, shares = Roofline(CHIP), SHARES["graphics"]
    assert rates.products(1e9, 1, "bfloat16") == {MEMORY: pytest.approx(2e9 / (1e12 * shares.bandwidth))}
    assert rates.products(1e9, 1000, "bfloat16") == {ARITHMETIC: pytest.approx(2e12 / (1e14 * shares.prompt))}


def test_a_sparse_step_reads_the_experts_that_somebody_meets():
    from smallpress.planner.model import known_models

    v3 = known_models()["deepseek-v3"]
    one, many = n_weights_read(v3, 1), n_weights_read(v3, 1e5)
    assert one == pytest.approx(n_products(v3), rel=1e-3)
    assert many == pytest.approx(671.026e9 - 2 * 129_280 * 7168, rel=1e-3)


def test_answers_of_one_length_cost_their_steps():
    at_work = Generating(CONFIG, Roofline(CHIP), "int8")
    ten = sum(at_work.answers(4, 100, all_of(10), 4).values())
    assert ten == pytest.approx(10 * sum(at_work.step(4, 105).values()))
    mixed = sum(at_work.answers(4, 100, Lengths((5.0, 15.0)), 4).values())
    assert mixed > ten  # the longest are waited for


def test_lengths_stop_at_the_limit():
    assert spread_out(900, 1000, 2.0).longest == 1000 and spread_out(5000, 1000).mean == 1000


def test_time_money_and_energy_follow_from_one_step():
    plan = plan_learning(PLANNED, catalogued(CHIP), Learned(n_tokens=1e6, batch_tokens=10_000, seq_len=1000))
    step = plan.figures["seconds a step"]
    assert plan.seconds == pytest.approx(100 * step)
    assert plan.money == pytest.approx(2 * 100 * step / 3600) and plan.energy == pytest.approx(100 * 100 * step)
    assert plan.bottleneck == ARITHMETIC


def test_a_reference_model_costs_its_memory_and_a_third_of_the_passes():
    plain = Rehearsed(1, 8, 8, 8, all_of(64))
    without, beside = (
        plan_grpo(PLANNED, catalogued(CHIP), one)
        for one in (plain, Rehearsed(1, 8, 8, 8, all_of(64), with_reference=True))
    )
    assert beside.memory["reference model"] > 0 and "reference model" not in without.memory
    assert beside.figures["seconds of update"] > 1.2 * without.figures["seconds of update"]


def test_the_json_of_a_plan_names_every_part():
    found = plan_learning(PLANNED, catalogued(CHIP), Learned(n_tokens=1e6)).as_json()
    assert sum(found["memory_bytes"].values()) == pytest.approx(found["peak_memory_bytes"], abs=10)
    assert found["fits"] is True and found["phases"][0]["name"] == "training"
