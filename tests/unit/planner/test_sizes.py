"""Memory and models: numbers that can be counted on paper."""

import pytest

from smallpress.model.sizes import parameters
from smallpress.planner.machine import Machine, machines
from smallpress.planner.memory import activation_bytes, optimizer_bytes, packed_bytes, training_parts
from smallpress.planner.model import from_numbers, known_models, of_size, planned_model
from smallpress.planner.place import catalogued
from smallpress.planner.serving import Serving, plan_serving
from smallpress.run.errors import UserError

TINY = "dim=64,layers=2,inter=128,heads=2,kv_heads=1,head_dim=32,vocab=96"


def test_training_holds_the_states_that_its_optimizer_needs():
    config = from_numbers(TINY)
    n = parameters(config).total
    parts = training_parts(config, 10, "bfloat16", "adamw")
    assert parts["weights"] == 6 * n and parts["gradients"] == 4 * n and parts["optimizer state"] == 8 * n
    embedding = 96 * 64
    assert optimizer_bytes(config, "adamw8") == (n - embedding) * 2 * (1 + 4 / 256) + 8 * embedding


def test_a_token_leaves_what_its_layers_need_to_go_back():
    """Stream and norm twice, q and attention's output, keys and values, gate and up."""
    each = 4 * 64 + 2 * 64 + 2 * 32 + 2 * 128
    assert activation_bytes(from_numbers(TINY), 10, "bfloat16") == 10 * 2 * 2 * each


def test_packed_weights_are_as_large_as_the_native_core_says():
    from smallpress import _native
    from smallpress.engine.native_runner import NativeRunner
    from smallpress.model.shapes import tensor_shapes
    from smallpress.planner.measure import drawn

    assert _native.best_kernels()
    config = from_numbers("dim=72,layers=2,inter=100,heads=3,kv_heads=1,head_dim=24,vocab=90")
    named = {name: drawn(config, name) for name in tensor_shapes(config)}
    vectors = 4 * 72 * 5
    for format in ("int4", "int8", "bfloat16"):
        if format == "int4":
            continue  # its embedding keeps 8 bits only where files are read
        runner = NativeRunner(config, named, 16, 4, packing=format)
        assert packed_bytes(config, format) - vectors == pytest.approx(runner.core.weight_bytes, rel=0.01)


def test_models_are_named_numbered_or_sized():
    assert parameters(known_models()["deepseek-v3"]).total == 671_026_419_200
    assert planned_model("qwen2.5-1.5b").config.n_layers == 28
    assert parameters(of_size(7e9)).total == pytest.approx(7e9, rel=0.06)
    with pytest.raises(UserError, match="did you mean layers"):
        from_numbers("dim=64,layer=2")
    with pytest.raises(UserError):
        planned_model("no-such-model")


def test_what_does_not_fit_is_refused_with_three_remedies_that_do():
    from smallpress.planner.machine import machine_named

    board = catalogued(machine_named("pi-5"))
    seven = planned_model("qwen2.5-7b")
    plan = plan_serving(seven, board, Serving("int8", 1, 128))
    assert not plan.fits and len(plan.remedies) == 3 and "--dtype int4" in plan.remedies
    assert plan_serving(seven, board, Serving("int4", 1, 128)).fits
    with pytest.raises(UserError, match=r"needs 8\.\d+ GB"):
        plan.require_room()


def test_a_person_adds_machines_and_wrong_ones_are_refused(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        '[mine]\ntitle = "mine"\nkind = "graphics"\nmemory = 8\nbandwidth = 100\npeaks = { float32 = 1 }\n'
        'watts = 50\nsource = "me"\n'
    )
    assert machines(file)["mine"] == Machine(
        title="mine", kind="graphics", memory=8, bandwidth=100, peaks={"float32": 1}, watts=50, source="me"
    )
    file.write_text('[mine]\ntitle = "mine"\nmemry = 8\n')
    with pytest.raises(UserError, match="memry"):
        machines(file)


def test_every_machine_says_where_its_figures_are_from():
    assert all(len(machine.source) > 5 for machine in machines().values())
    assert {"h800", "h100", "h200", "a100", "rtx-3060", "rtx-5090", "apple-m4", "pi-4", "pi-5"} <= set(machines())
