"""This machine: what the store remembers of it, and what is said without."""

import json

import pytest

from smallpress.planner.probe import VERSION, _path, known_place, nominal
from smallpress.planner.rates import Measured, Roofline, interpolated
from smallpress.run.machine import Machine

RATES = {
    "threads": 2,
    "bandwidth": 1e10,
    "by_rows": {format: [[1, 1e-10], [64, 1e-9]] for format in ("int4", "int8", "bfloat16", "float32")},
    "layer": 1e-6,
    "value": 1e-11,
    "attention_byte": 1e-10,
    "attention_step": 1e-11,
    "attention_multiply_add": 1e-12,
    "logit": 1e-9,
    "step": 1e-4,
    "row": 1e-5,
    "training": {
        dtype: {"block": 1e-11, "block_int8": 5e-12, "head": 1e-11, "attention": 1e-11}
        for dtype in ("float32", "bfloat16")
    },
    "optimizers": {"adamw": 1e-9, "adamw8": 1e-9},
    "pack": {"int8": 1e-9},
}


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLPRESS_HOME", str(tmp_path))
    return tmp_path


def test_without_a_probe_the_machine_is_known_roughly(store):
    place = known_place()
    assert place.is_rough and place.is_here and place.free > 0


def test_a_probe_in_the_store_is_used_and_a_damaged_one_is_not(store):
    probed = {"version": VERSION, "cpu": "x", "cores": 2, "seconds": 1.0, "busy": 1.0, "multiply_adds": 1e12}
    probed |= {"program": {"plain": 6e7, "torch": 3e8}, "rates": RATES}
    path = _path()
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(probed))
    place = known_place()
    assert not place.is_rough and place.program == {False: 6e7, True: 3e8} and place.machine.bandwidth == 10
    path.write_text(json.dumps(probed)[:-5])
    assert known_place().is_rough


def test_wider_instructions_make_a_faster_guess():
    plain = Machine("Linux", "x", (), 2, 8 << 30, 4 << 30)
    wide = Machine("Linux", "x", ("avx2", "avx512f", "amx_bf16", "amx_int8"), 2, 8 << 30, 4 << 30)
    assert nominal(wide)[0].peak("bfloat16") > 16 * nominal(plain)[0].peak("bfloat16")


def test_between_measured_rows_the_line_is_straight_and_beyond_them_it_goes_through_nothing():
    points = [[1, 1.0], [16, 4.0]]
    assert [interpolated(points, n) for n in (1, 6, 16, 32)] == [1.0, 2.0, 4.0, 8.0]


def test_a_probe_without_training_is_exact_for_answers_and_rough_for_learning(store):
    probed = {"version": VERSION, "cpu": "x", "cores": 2, "seconds": 1.0, "busy": 2.0, "multiply_adds": 1e12}
    probed |= {"program": {"plain": 6e7}, "rates": RATES | {"training": {}, "optimizers": {}, "pack": {}}}
    path = _path()
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(probed))
    assert not known_place().is_rough and known_place().is_busy and known_place(learning=True).is_rough


def test_gradients_in_8_bits_cost_what_was_measured_or_what_the_processor_is_capable_of():
    measured = Measured(**RATES)
    assert measured.training_products(1e12, "float32") == {"arithmetic": 10.0}
    assert measured.training_products(1e12, "float32", "int8") == {"arithmetic": 5.0}
    assert measured.head_products(1e12, "float32") == {"arithmetic": 10.0}
    processor = nominal(Machine("Linux", "x", ("avx512f", "avx512_vnni"), 2, 8 << 30, 4 << 30))[0]
    rates = Roofline(processor)
    plain, int8 = (rates.training_products(3e12, "float32", way)["arithmetic"] for way in ("same", "int8"))
    assert int8 == pytest.approx(plain / 3 + plain * 2 / 3 / 4)  # four times as many operations
