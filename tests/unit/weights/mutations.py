"""Changes that make a good model file a bad one, and what is then done with it; for tests and for bench/attack.py."""

import json
import random
import struct
import warnings
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from smallpress.model.config import GQA, Dense, ModelConfig
from smallpress.weights.export import WeightsOnDemand, save_hf_folder
from smallpress.weights.gguf_export import gguf_contents
from smallpress.weights.gguf_writer import BlockTensor, write_gguf
from smallpress.weights.load import open_model
from smallpress.weights.names import config_to_gguf, tensor_shapes
from smallpress.weights.names_gguf import ROPE_FACTORS, to_gguf_layout
from smallpress.weights.names_gguf_out import written_factors, written_tensors
from smallpress.weights.quantization import BY_NAME, tensor_format

NUMBERS = (0, 1, 7, 13, 255, 1 << 15, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 62, 1 << 63, (1 << 64) - 1)
VALUES = (None, True, -1, 0, 1, 3, 1 << 31, 1 << 63, 10**400, 1e308, "x", "\ud800", [], [8], {}, {"a": {}})
TARGETS = ("f32", "bf16", "q8_0", "q4_0", "q4_1", "q4_k", "q6_k")


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: flip a bit, overwrite with a telling number, cut, repeat, remove or insert a piece."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(max(1, min(len(changed), rng.choice((32, 256, 1 << 16)))))
        kind = rng.randrange(6)
        if kind == 0 and changed:
            changed[at % len(changed)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            size = rng.choice((1, 2, 4, 8))
            changed[at : at + size] = struct.pack("<Q", rng.choice(NUMBERS))[:size]
        elif kind == 2:
            del changed[at:]
        elif kind == 3:
            length = rng.randrange(1, 64)
            changed[at:at] = changed[at : at + length]
        elif kind == 4:
            del changed[at : at + rng.randrange(1, 32)]
        else:
            changed[at:at] = rng.randbytes(rng.randrange(1, 32))
    return bytes(changed)


def mutate_numbers(data: bytes, rng: random.Random) -> bytes:
    """Overwrite one to three bytes or words behind the header's first 24 bytes: the file mostly stays readable.

    Half of the time it is among the metadata and the list of tensors, which begin the file.
    """
    changed = bytearray(data)
    end = min(len(changed), 1 << 13) if rng.random() < 0.5 else len(changed)
    for _ in range(rng.randint(1, 3)):
        at, size = rng.randrange(24, end - 8), rng.choice((1, 1, 1, 4, 8))
        changed[at : at + size] = struct.pack("<Q", rng.choice((*NUMBERS, rng.getrandbits(16))))[:size]
    return bytes(changed)


def mutate_gguf(data: bytes, rng: random.Random) -> bytes:
    return (mutate if rng.random() < 0.5 else mutate_numbers)(data, rng)


def mutate_header(data: bytes, rng: random.Random) -> bytes:
    """As `mutate`; or the header of a safetensors file with its length put right, now and then just a number in it."""
    if rng.random() < 0.4:
        return mutate(data, rng)
    length = int.from_bytes(data[:8], "little")
    text, body = data[8 : 8 + length], data[8 + length :]
    chance = rng.random()
    if chance < 0.3:  # only the weights
        at = rng.randrange(len(body))
        return data[: 8 + length] + body[:at] + rng.randbytes(4) + body[at + 4 :]
    if chance < 0.6:
        digits = [at for at, byte in enumerate(text) if chr(byte).isdigit()]
        at = rng.choice(digits)
        text = text[:at] + rng.choice([b"0", b"1", b"2", b"16", b"9" * 18, b"9" * 30, b"-1", b"1e3"]) + text[at + 1 :]
    else:
        text = mutate(text, rng)
    return struct.pack("<Q", len(text)) + text + body


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Change a JSON text so that it mostly stays JSON: swap a value, at any depth, for a telling one."""
    settings = json.loads(data)
    for _ in range(rng.randint(1, 3)):
        place: Any = settings
        while True:
            keys = sorted(place) if isinstance(place, dict) else range(len(place))
            key = rng.choice(keys)
            if not (isinstance(place[key], dict | list) and place[key] and rng.random() < 0.7):
                break
            place = place[key]
        place[key] = deepcopy(rng.choice(VALUES))
    text = json.dumps(settings).encode()
    return mutate(text, rng) if rng.random() < 0.2 else text


SMALL = ModelConfig(
    family="llama", vocab_size=11, dim=32, n_layers=1, norm_eps=1e-5, rope_theta=1e4, max_seq_len=64,
    tied_head=False, attention=GQA(n_heads=2, n_kv_heads=1, head_dim=16), ffn=Dense(inter_dim=64),
)  # fmt: skip


def write_small_gguf(path: Path, target: str, config: ModelConfig = SMALL) -> None:
    """By default a llama of one layer with rows of 32, in the formats of `target`, with a vocabulary of letters."""
    config = config.model_copy(update={"vocab_size": 11})
    settings, draw = config_to_gguf(config), np.random.default_rng(0)
    values = {ours: draw.normal(size=shape).astype(np.float32) for ours, shape in tensor_shapes(config).items()}
    tensors: dict[str, BlockTensor] = {}
    factors = written_factors(config)
    if factors is not None:
        tensors[ROPE_FACTORS] = BlockTensor(BY_NAME["F32"], factors.shape, partial(np.copy, factors))
    for name, tensor in written_tensors(config).items():
        ours, shape = tensor.ours, tensor.shape
        make = partial(to_gguf_layout, name, ours, values[ours], config, settings["general.architecture"])
        tensors[name] = BlockTensor(tensor_format(ours, shape, config, target), shape, make)
    tokens = ["<pad>", "<s>", "</s>", *"abcdef", "ab", "abc"]
    vocabulary = {"model": "gpt2", "pre": "gpt-2", "tokens": tokens, "token_type": [3, 3, 3] + [1] * 8}
    vocabulary |= {"merges": ["a b", "ab c"], "bos_token_id": 1, "eos_token_id": 2, "add_bos_token": False}
    metadata = settings | {f"tokenizer.ggml.{key}": value for key, value in vocabulary.items()}
    write_gguf(path, metadata, tensors, replace=True)


def use(path: Path, out: Path, rng: random.Random) -> None:
    """What a person does with a model: open it, read it whole, make its tokenizer, convert and quantize it.

    Raises UserError where the files cannot be used.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # random bits are not always numbers
        files = open_model(path)
        for _ in files.tensors():
            pass
        files.tokenizer().encode("abc de")
        weights = WeightsOnDemand(files)
        if rng.random() < 0.7:
            write_gguf(out / "m.gguf", *gguf_contents(weights, files, rng.choice(TARGETS)), replace=True)
        else:
            save_hf_folder(out / "hf", weights, files, replace=True)
