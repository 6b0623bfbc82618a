"""A reward model on disk: a Hugging Face folder whose last tensor, `score.weight`, stands in the head's place.

It is what transformers' AutoModelForSequenceClassification with one label reads and writes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from smallpress.model.config import ModelConfig
from smallpress.model.reward_model import RewardModel
from smallpress.run.errors import UserError
from smallpress.run.seeds import derive_seed
from smallpress.weights.export import save_hf_folder
from smallpress.weights.load import HFFolder, ModelFiles, tensors_of
from smallpress.weights.names_hf import SCORE, is_reward_model

SCORE_NAME = "score.weight"  # ours


class RewardFiles(HFFolder):
    """The opened folder; `config` is that of the decoder below the score."""

    def _decoder(
        self, config: ModelConfig, settings: Mapping[str, Any], shapes: dict[str, tuple[int, ...]], path: Path
    ) -> ModelConfig:
        shape = shapes.pop(SCORE, None)
        if not is_reward_model(settings) or shape is None:
            remedy = "give one, such as `smallpress sft recipes/pairwise.toml` makes"
            raise UserError(f"{path} is no reward model", remedy)
        if shape != (1, config.dim):
            what = f"{path}: {SCORE} has the shape {list(shape)}: a reward model has one score of {config.dim} numbers"
            raise UserError(what, "give a model of one label")
        return config.body()

    def read_score(self) -> torch.Tensor:
        """[1, M] fp32."""
        return torch.from_numpy(self._shards.read(SCORE).copy())


def open_reward_model(path: str | Path) -> RewardFiles:
    """Raises UserError where the folder is none, or holds another kind of model."""
    path = Path(path)
    if not (path / "config.json").is_file():
        raise UserError(f"{path} is no folder of a reward model", "give one with config.json and safetensors weights")
    return RewardFiles(path)


def load_reward_model(files: RewardFiles, dtype: torch.dtype | None = None) -> RewardModel:
    """On the CPU, in `dtype` (fp32 where None); the score stays fp32."""
    return _with_score(files, files.read_score(), dtype)


def fresh_reward_model(files: ModelFiles, seed: int) -> RewardModel:
    """A language model with a new score in its head's place: Normal(0, 1 / (M + 1)) (Stiennon et al. 2020)."""
    dim, generator = files.config.dim, torch.Generator().manual_seed(derive_seed(seed, "score"))
    return _with_score(files, torch.randn(1, dim, generator=generator) * (dim + 1) ** -0.5, None)


def save_reward_model(
    folder: Path, weights: Mapping[str, torch.Tensor], files: ModelFiles, summary: str, dtype: str = "bfloat16"
) -> None:
    """`weights` by the names of a RewardModel's parameters, `files` those of the model it came from."""
    body = {name: tensor for name, tensor in weights.items() if name != SCORE_NAME}
    save_hf_folder(folder, body, files, dtype, {"summary": summary}, score=weights[SCORE_NAME])


def _with_score(files: ModelFiles, score: torch.Tensor, dtype: torch.dtype | None) -> RewardModel:
    with torch.device("meta"):
        model = RewardModel(files.config)
    model.load_state_dict(tensors_of(files, model.config, dtype) | {SCORE_NAME: score}, assign=True)
    return model
