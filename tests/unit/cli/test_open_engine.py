"""Who runs a model: the native core where there is one, torch in fp32 and without it."""

import pytest

from smallpress.cli.open_engine import engine_over, number_format
from smallpress.lowbit.native_core import native_core


@pytest.mark.skipif(native_core() is None, reason="this installation has no native core")
def test_the_native_core_runs_every_kind_of_model_and_torch_those_asked_for_in_fp32(odd_model):
    assert number_format() == "int8"
    runners = {format: engine_over(odd_model, format, 1, 32).runner for format in ("int8", "bfloat16", "float32")}
    assert {format: type(runner).__name__ for format, runner in runners.items()} == {
        "int8": "NativeRunner", "bfloat16": "NativeRunner", "float32": "TorchRunner",
    }  # fmt: skip
