"""Files changed at random: they open, or there is one clear error; never another exception, a hang or much memory."""

import importlib.util
import random
import sys
import time
import tracemalloc
import warnings
from pathlib import Path

import pytest

from smallpress.run.errors import UserError
from smallpress.weights.gguf import open_gguf
from smallpress.weights.load import open_model
from smallpress.weights.safetensors import open_safetensors


def beside(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mutations, families = beside("mutations"), beside("families")
mutate, mutate_header, mutate_json = mutations.mutate, mutations.mutate_header, mutations.mutate_json

N_FILES = 500
N_USED, N_OTHERS = 150, 50
"""Through everything a model is used for; bench/attack.py has 20,000 of each kind."""
SECONDS_A_FILE = 1.0
SPARE_BYTES = 64 << 20


def attack(paths, originals, mutators, open_and_read, n_files=N_FILES, named=True):
    """Write `n_files` mutations one after another; returns how many opened. `named`: errors have the path."""
    rng, opened = random.Random(0), 0
    for number in range(n_files):
        for path, original, mutator in zip(paths, originals, mutators, strict=True):
            path.write_bytes(original if mutator is None else mutator(original, rng))
        size = sum(path.stat().st_size for path in paths)
        traced = number % 5 == 0  # tracing takes five times as long as reading
        if traced:
            tracemalloc.start()
        start = time.process_time()
        try:
            open_and_read()
            opened += 1
        except UserError as error:
            assert "\n" not in str(error) and (not named or str(paths[0].parent) in str(error))
        finally:
            seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
            if traced:
                tracemalloc.stop()
        assert seconds < SECONDS_A_FILE and peak < 2 * size + SPARE_BYTES
    return opened


def read_all(file):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # random bits are not always numbers
        for name in file.tensors:
            file.read(name)


def test_mutated_gguf_files(tmp_path, tiny_gguf):
    path, put = tmp_path / "m.gguf", {"general.name": "tiny", "tokenizer.ggml.tokens": ["a", "bc", "é"], "flag": True}
    original = tiny_gguf(put=put).build()
    opened = attack([path], [original], [mutate], lambda: read_all(open_gguf(path)))
    assert 20 < opened < 480, "the mutations are too weak or too strong to tell anything"


def test_mutated_gguf_models(tmp_path, tiny_gguf):
    path = tmp_path / "m.gguf"
    original = tiny_gguf(bias=True).build()
    attack([path], [original], [mutate], lambda: list(open_model(path).tensors()))


def test_mutated_safetensors_files(tmp_path, safetensors_bytes):
    path = tmp_path / "m.safetensors"
    entries = {
        "__metadata__": {"format": "pt"},
        "a.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b\u00e9": {"dtype": "BF16", "shape": [4], "data_offsets": [16, 24]},
        "c": {"dtype": "F16", "shape": [0, 9], "data_offsets": [24, 24]},
    }
    original = safetensors_bytes(entries, bytes(24))
    opened = attack([path], [original], [mutate_header], lambda: read_all(open_safetensors(path)))
    assert 20 < opened < 480, "the mutations are too weak or too strong to tell anything"


@pytest.mark.parametrize("which", ["config.json", "model.safetensors"])
def test_mutated_folders(hf_folder, which):
    folder = hf_folder()
    names = ["config.json", "model.safetensors"]
    originals = [(folder / name).read_bytes() for name in names]
    mutators = [mutate_json if which == names[0] else None, mutate if which == names[1] else None]
    attack([folder / name for name in names], originals, mutators, lambda: list(open_model(folder).tensors()))


@pytest.mark.parametrize("target", ["f32", "q4_0", "q8_0"])
def test_mutated_ggufs_are_converted_and_quantized_or_refused(tmp_path, target):
    path, rng = tmp_path / "m.gguf", random.Random(1)
    mutations.write_small_gguf(path, target)
    original = path.read_bytes()
    used = attack(
        [path], [original], [mutations.mutate_gguf], lambda: mutations.use(path, tmp_path, rng), N_USED, named=False
    )
    assert 5 < used < 145, "the mutations are too weak or too strong to tell anything"


@pytest.mark.parametrize("name", ["deepseek_v3", "gemma3", "hunyuan_moe", "llama 3.1"])
def test_mutated_ggufs_of_other_architectures_are_used_or_refused(tmp_path, name):
    path, rng = tmp_path / "m.gguf", random.Random(3)
    mutations.write_small_gguf(path, "q8_0", families.small_configs()[name])
    original = path.read_bytes()
    used = attack(
        [path], [original], [mutations.mutate_gguf], lambda: mutations.use(path, tmp_path, rng), N_OTHERS, named=False
    )
    assert 2 < used < N_OTHERS - 2, "the mutations are too weak or too strong to tell anything"


@pytest.mark.parametrize("which", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_mutated_folders_are_converted_and_quantized_or_refused(hf_folder, tmp_path, which):
    folder, rng = hf_folder(), random.Random(2)
    original = (folder / which).read_bytes()
    mutator = mutate_header if which == "model.safetensors" else mutate_json
    attack([folder / which], [original], [mutator], lambda: mutations.use(folder, tmp_path, rng), N_USED, named=False)
