"""The models a server has, by name: loading, ready, or failed."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from smallpress.engine.engine import Engine
from smallpress.engine.request import SamplingParams
from smallpress.run.errors import UserError
from smallpress.server.errors import ApiError
from smallpress.server.grammar import Vocabulary
from smallpress.server.metrics import Metrics
from smallpress.server.worker import Worker
from smallpress.tokenizer.tokenizer import Tokenizer
from smallpress.weights.adapter import Adapter


@dataclass
class Hosted:
    """One model. `params` are what a request that says nothing is sampled with; `open` loads the weights.

    `form` is how it is asked, with a worked `example` where the form has one (tokenizer/prompts.py).
    `about` is what Ollama's paths tell beside the name: family, format, bytes. `root` is what it was loaded from.
    `adapters` are put beside the weights; one of them is a model of its own with the `parent` whose engine computes it,
    where it has the number `adapter`.
    """

    name: str
    tokenizer: Tokenizer
    params: SamplingParams
    max_seq_len: int
    open: Callable[[], Engine]
    about: dict[str, str | int] = field(default_factory=dict)
    form: str = "chat"
    example: tuple[str, str] | None = None
    root: str = ""
    adapters: list[Adapter] = field(default_factory=list)
    parent: "Hosted | None" = None
    adapter: int = 0
    created: int = field(default_factory=lambda: int(time.time()))
    worker: Worker | None = None
    engine: Engine | None = None
    metrics: Metrics = field(default_factory=Metrics)
    vocabulary: Vocabulary = field(init=False)

    def __post_init__(self) -> None:
        self.vocabulary = Vocabulary(self.tokenizer)

    @property
    def capacity(self) -> int:
        """Tokens of prompt and completion together; less than the model's where memory is short."""
        return self.max_seq_len if self.engine is None else self.engine.capacity

    def ready_worker(self) -> Worker:
        if self.worker is None:
            raise ApiError(503, f"{self.name} is being loaded", code="loading", retry_after=5)
        return self.worker

    def adapted(self, name: str, root: str, adapter: Adapter) -> "Hosted":
        """The same model as an adapter changes it, asked by another name."""
        self.adapters.append(adapter)
        child = replace(self, name=name, root=root, parent=self, adapter=len(self.adapters), metrics=Metrics())
        child.vocabulary = self.vocabulary
        return child

    def load(self) -> Engine:
        """Its weights, and its adapters'."""
        engine = self.open()
        for number, adapter in enumerate(self.adapters, start=1):
            given = engine.add_adapter(adapter)
            assert given == number, f"{given=} {number=}"
        return engine


class Models:
    """In the order given; the first answers where a request names none."""

    def __init__(self, models: Iterable[Hosted]) -> None:
        self._by_name: dict[str, Hosted] = {}
        for model in models:
            if model.name in self._by_name:
                raise UserError(f"two models are called {model.name}", "give one another name: name=MODEL")
            self._by_name[model.name] = model
        assert self._by_name, "a server has at least one model"

    def __iter__(self) -> Iterator[Hosted]:
        return iter(self._by_name.values())

    def get(self, name: str | None) -> Hosted:
        if name is None:
            return next(iter(self))
        if name not in self._by_name:
            known = ", ".join(self._by_name)
            raise ApiError(404, f"there is no model {name!r}; there is: {known}", "model", "model_not_found")
        return self._by_name[name]

    def start(self, model: Hosted, engine: Engine, max_live: int) -> None:
        """On the event loop, once the weights are there."""
        worker = Worker(engine, f"engine {model.name}", max_live)
        for one in self:
            if model in (one, one.parent):
                one.engine, one.worker = engine, worker

    def base_of(self) -> dict[str, str]:
        """Each adapter's name -> its model's."""
        return {model.name: model.parent.name for model in self if model.parent is not None}

    @property
    def state(self) -> str:
        """ok, loading, or failed."""
        workers = [model.worker for model in self]
        if any(worker is not None and worker.failed for worker in workers):
            return "failed"
        return "loading" if any(worker is None for worker in workers) else "ok"

    def busy_seconds(self) -> dict[str, float]:
        """How long each model that is loaded has computed."""
        return {
            model.name: model.engine.stats().busy_seconds
            for model in self
            if model.engine is not None and model.parent is None
        }

    def close(self) -> None:
        for model in self:
            if model.worker is not None and model.parent is None:
                model.worker.close()
        for model in self:  # an application outlives its server in the caches of the libraries it is made with
            model.worker = model.engine = None
