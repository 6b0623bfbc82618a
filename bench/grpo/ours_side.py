"""Our side of the GRPO benchmark: the trainer behind `smallpress grpo`, on the workload's questions."""

import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from workload import StepReport, Turns, Workload, reward, side_parser

import smallpress
from smallpress.cli.open_engine import engine_over, number_format
from smallpress.lowbit.linear8 import set_backward
from smallpress.optim.compute_dtype import compute_dtype
from smallpress.optim.master import MasterWeights
from smallpress.rl.rollout import RolloutGroup, Speech
from smallpress.rl.settings import GRPOSettings
from smallpress.rl.trainer import Trainer
from smallpress.tasks.example import Example, Verdict
from smallpress.weights.load import load_transformer, open_model


class Given:
    """Asks the workload's questions in order, in the place of a task the settings know."""

    name, levels = "addition", (2,)

    def __init__(self, workload: Workload):
        questions = [question for step in workload.steps for question in step]
        self.rest = iter(
            [
                Example(q.prompt, q.reference, self.name, self.levels[0], key=str(n), meta={})
                for n, q in enumerate(questions)
            ]
        )

    def examples(self, split: str, seed: int, level: int) -> Iterator[Example]:
        return self.rest

    def check(self, example: Example, completion: str, reading: str = "strict", opened: bool = False) -> Verdict:
        value = reward(completion, example.reference)
        return Verdict(value == 1.0, None, well_formed=value > 0, reason="")


class CountingTrainer(Trainer):
    """With `every_group`, groups that agree are trained on too, for a step as costly as the peer's."""

    every_group = False

    def _teaches(self, group: RolloutGroup) -> bool:
        return self.every_group or super()._teaches(group)


def make_trainer(workload: Workload, folder: Path) -> CountingTrainer:
    tokenizer = open_model(folder).tokenizer()
    model = load_transformer(folder)
    longest = max(len(tokenizer.encode(q.prompt)) for step in workload.steps for q in step) + workload.max_tokens
    dtype = compute_dtype("auto")
    engine = engine_over(model, number_format(), workload.n_rollouts, longest)
    speech = Speech(
        encode=lambda example: tokenizer.encode(example.prompt),
        decode=tokenizer.decode,
        stop_ids=frozenset() if workload.exact else tokenizer.eos_ids,
        stopper=lambda: None,
    )
    settings = GRPOSettings(
        model=str(folder),
        tasks=(f"{Given.name}:{Given.levels[0]}",),
        seed=workload.seed,
        prompts_per_step=len(workload.steps[0]),
        group_size=workload.group_size,
        temperature=workload.temperature,
        max_tokens=workload.max_tokens,
        algorithm="grpo",
        rewards={"accuracy": 0.9, "format": 0.1},
        lr=workload.lr,
        backward="int8",
        steps=len(workload.steps),
    )
    weights = MasterWeights(model, dtype)
    set_backward(settings.backward, weights.model.layers)
    trainer = CountingTrainer(settings, weights, engine, speech, {Given.name: Given(workload)})
    trainer.every_group = workload.exact
    return trainer


def measured_step(trainer: CountingTrainer) -> StepReport:
    began = time.perf_counter()
    metrics, groups = trainer.step()
    seconds = time.perf_counter() - began
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    return StepReport(
        seconds=seconds,
        generation=metrics["seconds/rollout"],
        prompt_tokens=sum(len(group.prompt_ids) * len(group.rollouts) for group in groups),
        completion_tokens=sum(len(rollout.completion.ids) for rollout in rollouts),
        rollouts_trained=sum(len(group.rollouts) for group in groups if trainer._teaches(group)),
        mean_reward=metrics["reward"],
    )


def main() -> int:
    options = side_parser(__doc__.splitlines()[0]).parse_args()
    turns = Turns(options.turns)
    workload = Workload.load(options.workload)
    trainer = make_trainer(workload, options.model)
    versions = {
        "smallpress": smallpress.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    dtype = str(trainer.weights.dtype).removeprefix("torch.")
    setting = f"{dtype} over fp32 weights, gradients in {trainer.settings.backward}, rollouts in {number_format()}"
    turns.introduce("smallpress", setting, versions, torch.get_num_threads())
    for _ in workload.steps:
        turns.wait()
        turns.report(measured_step(trainer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
