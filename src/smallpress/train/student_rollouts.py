"""The student's own answers to the prompts of its data, drawn from its weights as they are at the step."""

from collections.abc import Sequence

from smallpress.engine.engine import Engine
from smallpress.engine.request import Request, SamplingParams
from smallpress.optim.master import MasterWeights
from smallpress.run.seeds import derive_seed
from smallpress.train.samples import Sample


class StudentRollouts:
    """The engine keeps weights of its own, renewed before each draw."""

    def __init__(
        self,
        engine: Engine,
        weights: MasterWeights,
        eos_ids: frozenset[int],
        max_tokens: int,
        temperature: float,
        seed: int,
    ):
        self.engine, self.weights, self.eos_ids = engine, weights, eos_ids
        self.max_tokens, self.temperature, self.seed = max_tokens, temperature, seed

    def __call__(self, items: Sequence[Sample], step: int) -> list[Sample]:
        self.engine.update_weights(self.weights.master)
        prompts = [item.ids[: item.loss_mask.index(True)] for item in items]
        requests = [
            Request(
                prompt,
                SamplingParams(self.max_tokens, self.temperature, seed=derive_seed(self.seed, "student", step, i)),
                self.eos_ids,
            )
            for i, prompt in enumerate(prompts)
        ]
        completions = self.engine.generate(requests)
        self.engine.release()
        return [
            Sample((*prompt, *done.ids), (False,) * len(prompt) + (True,) * len(done.ids))
            for prompt, done in zip(prompts, completions, strict=True)
        ]
