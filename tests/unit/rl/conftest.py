"""A tiny policy, a speech of single bytes and a task whose right answer is one id: enough to learn in seconds."""

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch

from smallpress.engine.engine import Engine
from smallpress.engine.torch_runner import TorchRunner
from smallpress.optim.master import MasterWeights
from smallpress.rl.judges import Judges
from smallpress.rl.rollout import Speech
from smallpress.rl.settings import GRPOSettings
from smallpress.rl.trainer import Trainer
from smallpress.tasks.example import Example, Verdict

STOP, WANTED = 0, "7"
SPEECH = Speech(
    encode=lambda example: [1 + byte % 31 for byte in example.prompt.encode()],
    decode=lambda ids: " ".join(map(str, ids)),
    stop_ids=frozenset([STOP]),
    stopper=lambda: None,
)


class EmitSeven:
    """Right is an answer that holds id 7; well formed one that stops. Stands in for the family "addition"."""

    name, levels = "addition", (2, 3)

    def examples(self, split: str, seed: int, level: int) -> Iterator[Example]:
        while True:
            yield Example(f"emit {seed % 4}", WANTED, self.name, level, key=str(seed % 4), meta={})

    def check(self, example: Example, completion: str, reading: str = "strict", opened: bool = False) -> Verdict:
        ids = completion.split()
        return Verdict(example.reference in ids, None, well_formed=len(ids) < 4, reason="")


@pytest.fixture
def make_trainer(tiny_model) -> Iterator[Callable[..., Trainer]]:
    """Builds a trainer of the tiny model; settings by keyword. Its engine's books are checked after the test."""
    made: list[Trainer] = []

    def make(
        model_seed: int = 0,
        dtype: torch.dtype = torch.float32,
        task: object = None,
        judge: object = None,
        general: Sequence[Example] = (),
        **given: object,
    ) -> Trainer:
        chosen = {"model": "tiny", "tasks": ("addition:2",), "rewards": {"accuracy": 1.0}, "steps": 100, "warmup": 1}
        chosen |= {"prompts_per_step": 4, "group_size": 8, "max_tokens": 4, "micro_batch_tokens": 64, "lr": 1e-2}
        model = tiny_model(seed=model_seed)
        engine = Engine(TorchRunner(model, page_size=4, n_pages=256, dtype=dtype))
        settings = GRPOSettings(**(chosen | given))
        weights = MasterWeights(model, dtype, weight_decay=settings.weight_decay, optimizer=settings.optimizer)
        judges = Judges(settings.judges, dict.fromkeys(settings.judges, judge)) if judge else None
        made.append(Trainer(settings, weights, engine, SPEECH, {"addition": task or EmitSeven()}, judges, general))
        return made[-1]

    yield make
    for trainer in made:
        trainer.engine.check_integrity()
