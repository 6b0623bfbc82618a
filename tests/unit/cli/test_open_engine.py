"""Who runs a model: the native core what it can, torch the rest where the choice is left open."""

import pytest

from smallpress.cli.open_engine import engine_over, number_format
from smallpress.lowbit.native_core import native_core
from smallpress.run.errors import UserError


def test_a_model_the_core_does_not_run_is_run_by_torch(odd_model):
    if odd_model.config.family == "mistral":
        pytest.skip("its window is kept by never going past it")
    format = number_format("auto", odd_model.config)
    assert format in ("bfloat16", "float32")
    engine = engine_over(odd_model, format, 1, 32)
    assert type(engine.runner).__name__ == "TorchRunner"


@pytest.mark.skipif(native_core() is None, reason="this installation has no native core")
def test_eight_bits_are_refused_where_only_torch_can_run_the_model(odd_model):
    if odd_model.config.family == "mistral":
        pytest.skip("its window is kept by never going past it")
    with pytest.raises(UserError, match="native core does not run"):
        engine_over(odd_model, "int8", 1, 32)
