"""The files of a model that has none yet: a config and a tokenizer, for the first export of what was trained."""

from pathlib import Path
from typing import Any, NoReturn

from smallpress.model.config import ModelConfig
from smallpress.tokenizer.tokenizer import Tokenizer
from smallpress.weights.load import ModelFiles


class UnbornModel(ModelFiles):
    """Its weights are given to what writes it; it has none to read."""

    def __init__(self, config: ModelConfig, tokenizer: Path):
        super().__init__(tokenizer, config, {})

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_folder(self.path)

    def gguf_metadata(self) -> dict[str, Any]:
        return self.tokenizer().gguf_metadata(self.config.vocab_size)

    def read(self, name: str) -> NoReturn:
        raise AssertionError(f"{name} is asked of a model that was not written yet")

    def let_go(self) -> None:
        """There is nothing to give back."""

    def stored(self, name: str) -> NoReturn:
        self.read(name)
