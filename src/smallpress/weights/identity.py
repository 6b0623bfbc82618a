"""Whether a model is what it is called: a distillation often goes by the name of the large model it learned from."""

import re
from pathlib import PurePath

from smallpress.weights.load import ModelFiles

LARGE = re.compile(r"(^|-)deepseek-?(r1|v3)(-|$)|^r1$")
"""The name of a model of 671 billion parameters, in small letters, anything but letters and digits as a dash."""
SAYS_SO = re.compile(r"distill|qwen|llama|lite|tiny")
LARGE_FAMILIES, LARGE_LAYERS = ("deepseek_v3", "deepseek2", "deepseek_v2"), 60


def misnamed(presented: str, files: ModelFiles) -> str | None:
    """One line where `presented`, the name or path a person gave, is the large model's and the files are not.

    A name that says "distill", or the family it was distilled into, is honest.
    """
    called = _plain(PurePath(presented).name)
    if not sounds_large(presented):
        return None
    config = files.config
    if config.family in LARGE_FAMILIES and config.n_layers >= LARGE_LAYERS:
        return None
    name = f", {files.name!r}" if files.name and _plain(files.name) != called else ""
    what = f"a {config.family} model of {config.n_layers} layers{name}"
    return f"{PurePath(presented).name} is not the model of 671 billion parameters: the files hold {what}"


def sounds_large(presented: str) -> bool:
    """Whether it is a name of the large model, so that the files are worth a look."""
    called = _plain(PurePath(presented).name)
    return LARGE.search(called.removesuffix("-gguf")) is not None and not SAYS_SO.search(called)


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
