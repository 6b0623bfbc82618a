"""Any model as a planner needs it: a config, and how its file holds the weights where there is one.

smollm2-135m          a name of planner/models.toml, or what `smallpress run` takes: catalogue, hub, folder, GGUF
path/config.json      a config alone, no weights needed
7B                    a number of parameters: a decoder of the llama family of about that size
dim=576,layers=30,inter=1536,heads=9,kv_heads=3,head_dim=64,vocab=49152
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from smallpress.model.config import GQA, Dense, ModelConfig
from smallpress.model.shapes import tensor_shapes
from smallpress.run.errors import UserError
from smallpress.run.settings import nearest, read_toml, settings_from

if TYPE_CHECKING:
    from smallpress.weights.load import ModelFiles

NUMBER = re.compile(r"(\d+(?:\.\d+)?)([KMBT])", re.IGNORECASE)
UNITS = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
SHORT = {"dim": 0, "layers": 0, "inter": 0, "heads": 0, "kv_heads": 0, "head_dim": 64, "vocab": 32_000}
"""What a few numbers may name, and what stands where one is left out; 0: it follows from the others."""


@dataclass(frozen=True, slots=True)
class Planned:
    """`stored`: format -> how many numbers of matrices the file holds in it; empty where no weights are at hand."""

    name: str
    config: ModelConfig
    stored: Mapping[str, int]


def planned_model(word: str, offline: bool = True) -> Planned:
    """What `word` means. Raises UserError where it means nothing known."""
    if "=" in word and not Path(word).exists():
        return Planned(word, from_numbers(word), {})
    if number := NUMBER.fullmatch(word):
        return Planned(word, of_size(float(number[1]) * UNITS[number[2].lower()]), {})
    if Path(word).name == "config.json" and Path(word).is_file():
        from smallpress.weights.json_files import read_json_object
        from smallpress.weights.names_hf import config_from_hf

        return Planned(word, config_from_hf(read_json_object(Path(word)), (), word), {})
    known = known_models()
    from smallpress.weights.reference import resolve

    try:
        path = resolve(word, offline)
    except UserError:
        if word not in known:
            raise
        return Planned(word, known[word], {})
    return _opened(word, path)


def known_models() -> dict[str, ModelConfig]:
    """Those of models.toml, by name."""
    tree = read_toml(Path(str(files("smallpress.planner").joinpath("models.toml"))))
    return {name: settings_from(ModelConfig, entry, f"models.toml: {name}") for name, entry in tree.items()}


def _opened(word: str, path: Path) -> Planned:
    from smallpress.weights.load import open_model

    return planned_files(word, open_model(path))


def planned_files(word: str, opened: "ModelFiles") -> Planned:
    """A model already opened."""
    stored: dict[str, int] = {}
    for name, shape in tensor_shapes(opened.config).items():
        if len(shape) > 1:
            format, _ = opened.stored(name)
            stored[format] = stored.get(format, 0) + math.prod(shape)
    return Planned(word, opened.config, stored)


def from_numbers(word: str) -> ModelConfig:
    """A llama-shaped decoder from "dim=576,layers=30,...".

    >>> from_numbers("dim=64,layers=2").ffn.inter_dim
    192
    """
    given = dict(SHORT)
    for part in word.split(","):
        key, _, value = part.partition("=")
        if key not in SHORT:
            raise UserError(f"a model has no number {key!r}", nearest(key, SHORT))
        if not value.isdigit() or not int(value):
            raise UserError(f"{part!r} is not a whole number above zero", "write dim=576,layers=30")
        given[key] = int(value)
    if not given["dim"] or not given["layers"]:
        raise UserError(f"{word!r} leaves out dim or layers", "write at least dim=576,layers=30")
    heads = given["heads"] or max(1, given["dim"] // given["head_dim"])
    kv_heads = given["kv_heads"] or heads
    if heads % kv_heads:
        raise UserError(f"{heads} heads are not a multiple of {kv_heads} kv_heads", "give another kv_heads")
    inter = given["inter"] or math.ceil(given["dim"] * 8 / 3 / 64) * 64
    return _llama(given["vocab"], given["dim"], given["layers"], heads, kv_heads, given["head_dim"], inter)


def of_size(n_parameters: float) -> ModelConfig:
    """A decoder of the llama family with about so many parameters: heads of 128, one kv head for four, depth and width
    grown together (a layer for every 100 of width)."""
    if not 1e6 <= n_parameters <= 1e13:
        raise UserError(f"{n_parameters:g} parameters", "give 1M to 10T")
    dim = max(128, round((n_parameters * 100 / 10.5) ** (1 / 3) / 128) * 128)
    n_layers = max(1, round(n_parameters / (10.5 * dim * dim)))
    heads = dim // 128
    kv_heads = max(1, heads // 4)
    while heads % kv_heads:
        kv_heads -= 1
    return _llama(32_000, dim, n_layers, heads, kv_heads, 128, math.ceil(dim * 8 / 3 / 128) * 128, tied=True)


def _llama(
    vocab: int, dim: int, n_layers: int, heads: int, kv_heads: int, head_dim: int, inter: int, tied: bool = True
) -> ModelConfig:
    return ModelConfig(
        family="llama",
        vocab_size=vocab,
        dim=dim,
        n_layers=n_layers,
        attention=GQA(n_heads=heads, n_kv_heads=kv_heads, head_dim=head_dim),
        ffn=Dense(inter_dim=inter),
        norm_eps=1e-5,
        rope_theta=1e4,
        max_seq_len=1 << 17,
        tied_head=tied,
    )
