"""What supervised training asks of a machine, beyond rows that are all learned from."""

from dataclasses import replace

import pytest

from smallpress.planner.learning import Adapters, Learned, Reader, learning_memory, plan_learning
from smallpress.planner.lengths import all_of
from smallpress.planner.machine import machine_named
from smallpress.planner.memory import in_all
from smallpress.planner.model import Planned, from_numbers
from smallpress.planner.place import catalogued
from smallpress.planner.serving import Serving, plan_serving

CONFIG = from_numbers("dim=1024,layers=10,inter=4096,heads=16,kv_heads=4,head_dim=64,vocab=32000")
SMALL, PLACE = Planned("small", CONFIG, {}), catalogued(machine_named("rtx-4090"))
ASKED = Learned(1e6, 8192, 512, 2048, activity="sft")


def seconds(asked):
    return plan_learning(SMALL, PLACE, asked).figures["seconds a step"]


def test_adapters_are_few_and_leave_no_state_for_the_rest():
    adapters = Adapters(8, ("q", "v"))
    assert adapters.n_parameters(CONFIG) == 10 * 8 * ((1024 + 1024) + (256 + 1024))
    whole, adapted = (learning_memory(SMALL, PLACE, asked) for asked in (ASKED, replace(ASKED, adapters=adapters)))
    n = 2 * 10 * 1024 * (1024 + 256) + 3 * 10 * 1024 * 4096 + 32_000 * 1024 + 21 * 1024
    assert whole["optimizer state"] == 8 * n and adapted["optimizer state"] == 8 * adapters.n_parameters(CONFIG)
    assert adapted["weights"] == 2 * n + 6 * adapters.n_parameters(CONFIG)
    assert seconds(replace(ASKED, adapters=adapters)) < 0.8 * seconds(ASKED)


def test_four_bits_under_adapters_take_a_quarter_of_the_blocks():
    adapters = Adapters(8, ("q",))
    half, quarter = (
        learning_memory(SMALL, PLACE, replace(ASKED, adapters=replace(adapters, base=base))) for base in (None, "nf4")
    )
    blocks = 2 * 10 * 1024 * (1024 + 256) + 3 * 10 * 1024 * 4096 + 21 * 1024
    assert half["weights"] - quarter["weights"] == pytest.approx((2 - 4.25 / 8) * blocks)


def test_computing_blocks_again_trades_activations_for_time():
    again = replace(ASKED, recompute=True)
    assert (
        learning_memory(SMALL, PLACE, again)["activations"] < 0.2 * learning_memory(SMALL, PLACE, ASKED)["activations"]
    )
    assert 1.2 < seconds(again) / seconds(ASKED) < 1.34


def test_a_teacher_that_reads_along_costs_its_weights_and_a_third_of_the_passes():
    read = replace(ASKED, reader=Reader("teacher", CONFIG, has_logits=True))
    more = in_all(learning_memory(SMALL, PLACE, read)) - in_all(learning_memory(SMALL, PLACE, ASKED))
    logits = 64 * 6 * 4 * 32_000
    assert more == pytest.approx(2 * (learning_memory(SMALL, PLACE, ASKED)["optimizer state"] / 8) + logits)
    assert 1.2 < seconds(read) / seconds(ASKED) < 1.34


def test_a_teacher_of_its_own_goes_before_the_training_and_the_larger_of_both_counts():
    writing = Serving("int8", 64, 128, all_of(256), 1000)
    plan = plan_learning(SMALL, PLACE, replace(ASKED, asked=writing), SMALL)
    assert [phase.name for phase in plan.phases] == ["teacher", "training"] and plan.phases[0].tokens == 1000 * 384
    assert plan.peak_memory == in_all(learning_memory(SMALL, PLACE, ASKED))


def test_a_cache_that_is_bounded_lets_fewer_run():
    free = Serving("int8", 64, 128, all_of(128))
    each = 256 * 2 * 10 * 4 * 64 * 2  # tokens, keys and values, layers, heads, widths, bytes
    bounded = plan_serving(SMALL, PLACE, replace(free, most_cache=8.5 * each))
    assert bounded.figures["sequences at once"] == 8 and bounded.memory["KV cache"] == pytest.approx(
        8.5 * each, rel=1e-3
    )
    assert plan_serving(SMALL, PLACE, free).figures["sequences at once"] == 64


def test_a_million_tokens_cost_the_hours_they_take():
    priced = catalogued(PLACE.machine.model_copy(update={"price": 3.6, "watts": 100.0}))
    figures = plan_serving(SMALL, priced, Serving("int8", 8)).figures
    seconds_each = 1e6 / figures["decode tokens a second"]
    assert figures["price of a million tokens out"] == pytest.approx(seconds_each * 3.6 / 3600)
    assert figures["kWh a million tokens out"] == pytest.approx(seconds_each * 100 / 3.6e6)
