"""A model opened for supervised training: its weights whole or adapted, and what is written when it has learned."""

from pathlib import Path

import torch
from torch import nn

from smallpress.lowbit.linear8 import set_backward
from smallpress.model.low_rank import adapt, adapter_scale
from smallpress.model.reward_model import RewardModel
from smallpress.model.transformer import Transformer
from smallpress.optim.master import MasterWeights
from smallpress.run.errors import UserError
from smallpress.run.settings import nearest
from smallpress.train.settings import LoRA, TrainSettings
from smallpress.weights.adapter import save_adapter, their_modules
from smallpress.weights.export import as_fp32, save_hf_folder
from smallpress.weights.load import ModelFiles, load_transformer
from smallpress.weights.reward_model import fresh_reward_model, save_reward_model

MODEL, ADAPTER = "model", "adapter"


def open_weights(settings: TrainSettings, files: ModelFiles, dtype: torch.dtype, scores: bool = False) -> MasterWeights:
    """The model's weights under an optimizer; with `lora`, those of adapters over the model frozen in `dtype`; with
    `scores` a reward model's."""
    lora = settings.lora
    model: Transformer
    if scores:
        model = fresh_reward_model(files, settings.seed)
    else:
        model = load_transformer(files, None if lora is None else dtype)
    if lora is not None:
        _adapt(model, lora, files, settings.seed)
    model.recompute = settings.recompute
    set_backward(settings.backward, model.layers)
    return MasterWeights(model, dtype, weight_decay=settings.weight_decay, optimizer=settings.optimizer, take=True)


def check_length(max_tokens: int, files: ModelFiles) -> None:
    if max_tokens > files.config.max_seq_len:
        what = f"max_tokens={max_tokens} is above the {files.config.max_seq_len} tokens the model can see"
        raise UserError(what, "choose less")


def _adapt(model: Transformer, lora: LoRA, files: ModelFiles, seed: int) -> None:
    linear = {name.rpartition(".")[2] for name, module in model.layers.named_modules() if isinstance(module, nn.Linear)}
    known = {name.rpartition(".")[2] for name in their_modules(files.config)} & linear
    for target in lora.targets:
        if target not in known:
            raise UserError(f"lora.targets: there is no linear layer {target!r} to adapt", nearest(target, known))
    scale = adapter_scale(lora.rank, lora.alpha, lora.rank_stabilized)
    adapt(model, lora.targets, lora.rank, scale, lora.base, seed)


def result_folder(settings: TrainSettings, run: Path) -> Path:
    """Where the run's model or adapter lies when it is done."""
    return run / (MODEL if settings.lora is None else ADAPTER)


def export(settings: TrainSettings, files: ModelFiles, weights: MasterWeights, folder: Path, summary: str) -> None:
    """A Hugging Face folder in bfloat16, or an adapter that `peft` loads; whole or not at all."""
    lora = settings.lora
    if isinstance(weights.model, RewardModel):
        save_reward_model(folder, weights.master, files, summary)
        return
    if lora is None:
        save_hf_folder(folder, weights.master, files, "bfloat16", {"summary": summary})
        return
    layers = [name.removesuffix(".a") for name in weights.master if name.endswith(".a")]
    pairs = {layer: (as_fp32(weights.master[f"{layer}.a"]), as_fp32(weights.master[f"{layer}.b"])) for layer in layers}
    save_adapter(
        folder, pairs, files.config, settings.model, lora.alpha, lora.rank_stabilized, tokenizer=files.tokenizer()
    )
