"""The native runner fed from a model on disk."""

import numpy as np
import pytest

from smallpress.engine.engine import Engine
from smallpress.engine.request import Request, SamplingParams
from smallpress.lowbit.blocks import FORMATS
from smallpress.model.config import GQA, Dense, ModelConfig
from smallpress.weights.gguf_writer import BlockTensor, gguf_header
from smallpress.weights.load import open_model
from smallpress.weights.names import GGUF, config_to_gguf, foreign_names, tensor_shapes

native = pytest.importorskip("smallpress.engine.native_runner")

TEXT = "The capital of France is Paris, and the capital of Germany is Berlin. The capital of Italy is"


def logits(runner, ids: list[int]) -> np.ndarray:
    n = np.arange(len(ids))
    runner.core.forward(np.array(ids), n, np.arange(4), np.zeros_like(n), n)
    return runner.core.logits()


@pytest.fixture(scope="module")
def files(smollm2):
    return open_model(smollm2)


F16_AT = {"Q2_K": [80, 82], "Q3_K": [108], "Q5_K": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "IQ4_NL": [0], "IQ4_XS": [0]}
F16_AT |= {"TQ1_0": [52], "TQ2_0": [64]}
"""The formats the core does not read itself, and where each block has its scales."""


def random_gguf(path, name):
    """One layer whose matrices are random blocks of that format with scales around 1/1000, and norms of ones."""
    config = ModelConfig(
        family="llama", vocab_size=40, dim=256, n_layers=1, norm_eps=1e-5, rope_theta=1e4, max_seq_len=64,
        tied_head=False, attention=GQA(n_heads=4, n_kv_heads=2, head_dim=64), ffn=Dense(inter_dim=256),
    )  # fmt: skip
    kinds, draw = {kind.name: kind for kind in FORMATS.values()}, np.random.default_rng(0)
    names, tensors, data = foreign_names(config, GGUF), {}, b""
    for ours, shape in tensor_shapes(config).items():
        kind = kinds["F32" if len(shape) == 1 else name]
        tensors[names[ours]] = tensor = BlockTensor(kind, shape, lambda: np.zeros(0))
        blocks = draw.integers(0, 256, (tensor.nbytes // kind.block_bytes, kind.block_bytes), dtype=np.uint8)
        for at in F16_AT.get(kind.name, []):
            scales = draw.uniform(5e-4, 2e-3, len(blocks)).astype("<f2")
            blocks[:, at : at + 2] = scales[:, None].view(np.uint8)
        data += np.ones(shape, "<f4").tobytes() if len(shape) == 1 else blocks.tobytes()
        data += bytes(-len(data) % 32)
    path.write_bytes(gguf_header(config_to_gguf(config), tensors) + data)
    return open_model(path)


@pytest.mark.parametrize("name", F16_AT)
def test_a_format_the_core_does_not_read_runs_in_8_bits(tmp_path, name):
    """To the bit what the same file's numbers give: it is decoded to fp32 and packed."""
    files = random_gguf(tmp_path / "m.gguf", name)
    stored = native.NativeRunner.from_files(files, "stored", 16, 4)
    packed = native.NativeRunner(files.config, dict(files.tensors()), 16, 4)
    ids = [3, 1, 4, 1, 5, 9]
    found = logits(stored, ids)
    assert (found == logits(packed, ids)).all() and np.isfinite(found).all() and found.std() > 0


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
