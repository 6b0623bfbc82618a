"""The peer's side of the GRPO benchmark: TRL's GRPOTrainer with transformers' generate. Runs in the peers' venv.

Every setting is one that TRL offers, but `patched`. The trainer drives its own loop; a callback lets it wait for its
turn before a step, and the time of `_generate_single_turn` (prompts padded, tokens sampled) is its generation.
"""

import logging
import platform
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass

import torch
import transformers
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from workload import StepReport, Turns, Workload, reward, side_parser

# With `exact`, this token stands in for the end of text. The model knows it and never says it: no rollout ends early,
# and nothing is added to the cost of a token, as min_new_tokens would add a pass over the logits.
NEVER_SAID = "<empty_output>"


@dataclass(frozen=True, slots=True)
class Setting:
    """`weights` is their dtype; with fp32 weights, `autocast` computes in bf16."""

    micro_batch: int
    weights: torch.dtype = torch.float32
    autocast: bool = True
    attention: str = "sdpa"
    compiled: bool = False
    static_cache: bool = False
    continuous_batching: bool = False
    scores_completions_only: bool = False


SETTINGS = {
    "best": Setting(micro_batch=8),
    "fp32": Setting(micro_batch=8, autocast=False),
    "micro_batch_4": Setting(micro_batch=4),
    "micro_batch_16": Setting(micro_batch=16),
    "micro_batch_32": Setting(micro_batch=32),
    "one_batch": Setting(micro_batch=64),
    # bf16 weights round most updates of lr 1e-5 away: the fastest arithmetic, not a training anyone would run.
    "bf16_weights": Setting(micro_batch=8, weights=torch.bfloat16, autocast=False),
    "eager_attention": Setting(micro_batch=8, attention="eager"),
    "compiled": Setting(micro_batch=8, compiled=True),
    # The static cache has the weights' dtype and refuses what autocast gives it.
    "static_cache": Setting(micro_batch=8, weights=torch.bfloat16, autocast=False, static_cache=True),
    # TRL leaves the weights in bf16 after its first continuous batch, so that is what it is given to start with.
    "continuous_batching": Setting(
        micro_batch=8, weights=torch.bfloat16, autocast=False, attention="paged|sdpa", continuous_batching=True
    ),
    # Not a setting but a patch of one line: TRL 1.16 passes the prompts through the head too, unless it has Triton.
    "patched": Setting(micro_batch=8, scores_completions_only=True),
}


class StepClock(TrainerCallback):
    """Waits for the turn, times the step, reports it."""

    def __init__(self, turns: Turns):
        self.turns = turns
        self.generation, self.prompt_tokens, self.completion_tokens = 0.0, 0, 0
        self.rewards: list[float] = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.turns.wait()
        self.started = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        seconds = time.perf_counter() - self.started
        self.turns.report(
            StepReport(
                seconds=seconds,
                generation=self.generation,
                prompt_tokens=self.prompt_tokens,
                completion_tokens=self.completion_tokens,
                rollouts_trained=len(self.rewards),
                mean_reward=sum(self.rewards) / len(self.rewards),
            )
        )

    def score(self, prompts, completions, reference, **kwargs) -> list[float]:
        """The reward function TRL calls."""
        self.rewards = [reward(text, right) for text, right in zip(completions, reference, strict=True)]
        return self.rewards


class TimedTrainer(GRPOTrainer):
    clock: StepClock

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        started = time.perf_counter()
        completion_ids, logprobs = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        self.clock.generation = time.perf_counter() - started
        self.clock.prompt_tokens = sum(len(ids) for ids in prompt_ids)
        self.clock.completion_tokens = sum(len(ids) for ids in completion_ids)
        return completion_ids, logprobs


def trl_config(workload: Workload, setting: Setting, folder: str) -> GRPOConfig:
    assert workload.n_rollouts % setting.micro_batch == 0, f"{workload.n_rollouts=} {setting.micro_batch=}"
    continuous = {}
    if setting.continuous_batching:
        continuous = {
            "use_transformers_continuous_batching": True,
            "transformers_continuous_batching_config": {"max_memory_percent": 0.1},
        }
    return GRPOConfig(
        output_dir=folder,
        max_steps=len(workload.steps),
        per_device_train_batch_size=setting.micro_batch,
        gradient_accumulation_steps=workload.n_rollouts // setting.micro_batch,
        num_generations=workload.group_size,
        max_completion_length=workload.max_tokens,
        temperature=workload.temperature,
        beta=0.0,
        loss_type="grpo",
        learning_rate=workload.lr,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        shuffle_dataset=False,
        bf16=setting.autocast,
        gradient_checkpointing=False,
        torch_compile=setting.compiled,
        cache_implementation="static" if setting.static_cache else None,
        use_cpu=True,
        dataloader_pin_memory=False,
        seed=workload.seed,
        logging_steps=1,
        disable_tqdm=True,
        report_to="none",
        save_strategy="no",
        **continuous,
    )


def main() -> int:
    parser = side_parser(__doc__.splitlines()[0])
    parser.add_argument("--setting", choices=SETTINGS, default="best")
    options = parser.parse_args()
    turns = Turns(options.turns)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)

    workload, setting = Workload.load(options.workload), SETTINGS[options.setting]
    tokenizer = AutoTokenizer.from_pretrained(options.model, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(
        options.model, dtype=setting.weights, attn_implementation=setting.attention
    )
    if workload.exact:
        assert NEVER_SAID in tokenizer.get_vocab(), f"choose a token of {options.model} that it never says"
        tokenizer.eos_token = NEVER_SAID
        model.generation_config.eos_token_id = tokenizer.eos_token_id
    if setting.scores_completions_only:
        trl.trainer.utils._use_triton = lambda device: True  # there it only decides which positions are scored

    questions = [question for step in workload.steps for question in step]
    clock = StepClock(turns)
    with tempfile.TemporaryDirectory() as folder:
        trainer = TimedTrainer(
            model=model,
            processing_class=tokenizer,
            reward_funcs=clock.score,
            args=trl_config(workload, setting, folder),
            train_dataset=Dataset.from_list([{"prompt": q.prompt, "reference": q.reference} for q in questions]),
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
