"""The peer's side of the SFT benchmark: TRL's SFTTrainer, packed. Runs in the peers' venv.

Every setting is one that TRL offers. Weights are fp32 under bf16 autocast, as training in mixed precision has them; the
loss is TRL's own chunked one, which skips what is not trained on.
"""

import argparse
import logging
import platform
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
import trl
from datasets import Dataset
from grpo.workload import Turns
from sft.rows import Step, load
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


@dataclass(frozen=True, slots=True)
class Setting:
    """`rows` packed rows of `length` tokens go through together; without `packing`, samples padded to the longest.

    fp32 weights compute in bf16 with `autocast`, as our side does in all settings but `fp32`.
    """

    rows: int = 1
    length: int = 1024
    packing: bool = True
    attention: str = "sdpa"
    weights: torch.dtype = torch.float32
    autocast: bool = True


SETTINGS = {
    "best": Setting(),
    "fp32": Setting(autocast=False),  # where the processor multiplies bf16 no faster
    "rows_2": Setting(rows=2),
    "length_512": Setting(rows=2, length=512),
    "eager_attention": Setting(attention="eager"),
    "padded": Setting(rows=8, packing=False),
    # bf16 weights round most updates of lr 1e-5 away: the fastest arithmetic, not a training anyone would run.
    "bf16_weights": Setting(weights=torch.bfloat16),
}


class Clock(TrainerCallback):
    """Waits for the turn, times the step, reports it."""

    def __init__(self, turns: Turns):
        self.turns, self.tokens, self.loss = turns, 0, 0.0

    def on_step_begin(self, args, state, control, **kwargs):
        self.turns.wait()
        self.tokens, self.loss = 0, 0.0
        self.started = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.turns.report(Step(time.perf_counter() - self.started, self.tokens, self.loss))


class CountingTrainer(SFTTrainer):
    clock: Clock

    def compute_loss(self, model, inputs, *args, **kwargs):
        mask = inputs.get("attention_mask")
        self.clock.tokens += inputs["input_ids"].numel() if mask is None else int(mask.sum())
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        self.clock.loss += float(loss[0] if isinstance(loss, tuple) else loss)
        return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--step-tokens", type=int, required=True)
    parser.add_argument("--setting", choices=SETTINGS, default="best")
    options = parser.parse_args()
    turns = Turns(taking_turns=True)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    setting = SETTINGS[options.setting]
    rows = load(options.rows)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(
        options.model, dtype=setting.weights, attn_implementation=setting.attention
    )
    clock = Clock(turns)
    passes = max(1, round(options.step_tokens / (setting.rows * setting.length)))
    if not setting.packing:
        mean = sum(len(str(row)) for row in rows) / len(rows) / 3  # about three characters a token, less the keys
        passes = max(1, round(options.step_tokens / (setting.rows * mean)))
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            max_steps=options.steps,
            per_device_train_batch_size=setting.rows,
            gradient_accumulation_steps=passes,
            max_length=setting.length,
            packing=setting.packing,
            learning_rate=1e-5,
            lr_scheduler_type="constant",
            adam_beta2=0.95,
            bf16=setting.autocast and setting.weights == torch.float32,
            gradient_checkpointing=False,
            use_cpu=True,
            dataloader_pin_memory=False,
            logging_steps=1000,
            disable_tqdm=True,
            report_to="none",
            save_strategy="no",
        )
        trainer = CountingTrainer(
            model=model,
            processing_class=tokenizer,
            args=config,
            train_dataset=Dataset.from_list(rows),
            callbacks=[clock],
        )
        trainer.clock = clock
        versions = {
            "trl": trl.__version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        turns.introduce("trl", options.setting, versions, torch.get_num_threads())
        trainer.train()


if __name__ == "__main__":
    main()
