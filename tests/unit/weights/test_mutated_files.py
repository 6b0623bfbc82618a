"""Files changed at random: they open, or there is one clear error; never another exception, a hang or much memory."""

import json
import random
import struct
import time
import tracemalloc
import warnings

import pytest

from smallpress.run.errors import UserError
from smallpress.weights.gguf import open_gguf
from smallpress.weights.load import open_model
from smallpress.weights.safetensors import open_safetensors

N_FILES = 500
SECONDS_A_FILE = 1.0
SPARE_BYTES = 64 << 20
NUMBERS = (0, 1, 7, 13, 255, 1 << 15, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 62, 1 << 63, (1 << 64) - 1)
VALUES = (None, True, -1, 0, 1, 3, 1 << 31, 1 << 63, 10**400, 1e308, "x", [], [8], {}, {"a": {}})


def mutate(data, rng):
    """One to four changes: flip a bit, overwrite with a telling number, cut, repeat, remove or insert a piece."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(max(1, min(len(data), rng.choice((32, 256, 1 << 16)))))
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            size = rng.choice((1, 2, 4, 8))
            data[at : at + size] = struct.pack("<Q", rng.choice(NUMBERS))[:size]
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            length = rng.randrange(1, 64)
            data[at:at] = data[at : at + length]
        elif kind == 4:
            del data[at : at + rng.randrange(1, 32)]
        else:
            data[at:at] = rng.randbytes(rng.randrange(1, 32))
    return bytes(data)


def mutate_header(data, rng):
    """As `mutate`; or the header of a safetensors file with its length put right, now and then just a number in it."""
    if rng.random() < 0.4:
        return mutate(data, rng)
    length = int.from_bytes(data[:8], "little")
    text, body = data[8 : 8 + length], data[8 + length :]
    if rng.random() < 0.5:
        digits = [at for at, byte in enumerate(text) if chr(byte).isdigit()]
        at = rng.choice(digits)
        text = text[:at] + rng.choice([b"0", b"1", b"2", b"16", b"9" * 18, b"9" * 30, b"-1", b"1e3"]) + text[at + 1 :]
    else:
        text = mutate(text, rng)
    return struct.pack("<Q", len(text)) + text + body


def mutate_json(data, rng):
    """Change a JSON text so that it mostly stays JSON: swap a value for a telling one."""
    settings = json.loads(data)
    for key in rng.sample(sorted(settings), rng.randint(1, 3)):
        settings[key] = rng.choice(VALUES)
    text = json.dumps(settings).encode()
    return mutate(text, rng) if rng.random() < 0.2 else text


def attack(paths, originals, mutators, open_and_read):
    """Write N_FILES mutations one after another; returns how many opened."""
    rng, opened = random.Random(0), 0
    for number in range(N_FILES):
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
            assert "\n" not in str(error) and str(paths[0].parent) in str(error)
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
