"""The native runner fed from a model on disk."""

import numpy as np
import pytest

from smallpress.engine.engine import Engine
from smallpress.engine.request import Request, SamplingParams
from smallpress.weights.load import open_model

native = pytest.importorskip("smallpress.engine.native_runner")

TEXT = "The capital of France is Paris, and the capital of Germany is Berlin. The capital of Italy is"


def logits(runner, ids: list[int]) -> np.ndarray:
    n = np.arange(len(ids))
    runner.core.forward(np.array(ids), n, np.arange(4), np.zeros_like(n), n)
    return runner.core.logits()


@pytest.fixture(scope="module")
def files(smollm2):
    return open_model(smollm2)


@pytest.fixture(scope="module")
def ids(files):
    return files.tokenizer().encode(TEXT)


def test_a_file_gives_the_runner_that_its_arrays_give(files, ids):
    from_files = native.NativeRunner.from_files(files, "int8", 16, 4)
    from_arrays = native.NativeRunner(files.config, dict(files.tensors()), 16, 4)
    assert (logits(from_files, ids) == logits(from_arrays, ids)).all()


@pytest.mark.parametrize("packing", ("stored", "int4", "int8"))
def test_what_few_bits_change_is_a_tenth_of_the_logits_spread(files, ids, packing):
    """Measured: .075 of a standard deviation for the file's own 4 bits, .095 for 8; nearly all by the activations."""
    exact = logits(native.NativeRunner.from_files(files, "bfloat16", 16, 4), ids)
    found = logits(native.NativeRunner.from_files(files, packing, 16, 4), ids)
    assert (np.abs(found - exact).mean(-1) / exact.std(-1)).mean() < 0.12
    assert found[-1].argmax() == exact[-1].argmax()


def test_the_engine_speaks_from_files(files):
    tokenizer = files.tokenizer()
    engine = Engine(native.NativeRunner.from_files(files, "stored", 16, 8))
    prompt = tuple(tokenizer.encode("The capital of France is"))
    (said,) = engine.generate([Request(prompt, SamplingParams(max_tokens=1, temperature=0.0))])
    assert tokenizer.decode(said.ids).strip() == "Paris"
    engine.check_integrity()
