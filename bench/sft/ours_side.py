"""Our side of the SFT benchmark: the trainer behind `smallpress sft`."""

import argparse
import platform
import time
from pathlib import Path

import torch
from grpo.workload import Turns
from sft.rows import Step

import smallpress
from smallpress.train.data import read_samples, total_tokens
from smallpress.train.objective import Likelihood
from smallpress.train.session import open_weights
from smallpress.train.settings import SFTSettings
from smallpress.train.trainer import Trainer
from smallpress.weights.load import open_model


def make_trainer(rows: Path, folder: Path, n_steps: int, step_tokens: int, dtype: torch.dtype) -> Trainer:
    settings = SFTSettings(model=str(folder), data=(str(rows),), eval_n=0, lr=1e-5, lr_shape="constant", steps=n_steps)
    files = open_model(folder)
    data = read_samples(settings, files.tokenizer())
    per_step = round(step_tokens * len(data.items) / total_tokens(data.items)[0])
    settings = settings.model_copy(update={"samples_per_step": per_step})
    weights = open_weights(settings, files, dtype)
    return Trainer(settings, weights, Likelihood(settings.micro_batch_tokens), data.items, data.held_out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--step-tokens", type=int, required=True)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    options = parser.parse_args()
    turns = Turns(taking_turns=True)
    dtype = getattr(torch, options.dtype)
    trainer = make_trainer(options.rows, options.model, options.steps, options.step_tokens, dtype)
    versions = {"smallpress": smallpress.__version__, "torch": torch.__version__, "python": platform.python_version()}
    turns.introduce("smallpress", f"{options.dtype} over fp32 weights, packed", versions, torch.get_num_threads())
    for _ in range(options.steps):
        turns.wait()
        began = time.perf_counter()
        log, _ = trainer.step()
        turns.report(Step(time.perf_counter() - began, round(log["tokens"]), log["loss"]))


if __name__ == "__main__":
    main()
