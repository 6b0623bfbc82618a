"""Which questions are asked: held-out ones of families and levels, or those of a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from random import Random

from smallpress.benchmarks.benchmark import Benchmark
from smallpress.run.errors import UserError
from smallpress.run.seeds import derive_seed
from smallpress.tasks.check import Checker
from smallpress.tasks.files import FileTask, read_problems
from smallpress.tasks.task import TASKS, Example, held_out_set, split_of

N_FROM_TASKS = 200


@dataclass(frozen=True, slots=True)
class Problems:
    """Questions and, by family, who checks their answers."""

    examples: Sequence[Example]
    tasks: Mapping[str, Checker]


def held_out(mixture: Sequence[tuple[str, int]], n: int | None = None, seed: int = 0) -> Problems:
    """`n` held-out problems in all (200 where it is None), the same number of each pair, rounded up."""
    n = N_FROM_TASKS if n is None else n
    examples = held_out_set(mixture, ceil(n / len(mixture)), seed)
    return Problems(examples, {name: TASKS[name] for name, _ in mixture})


def from_file(path: str | Path, n: int | None = None, seed: int = 0, held_out_only: bool = False) -> Problems:
    """The problems of a file, or `n` of them drawn by `seed`, in the file's order.

    `held_out_only` leaves out those that training on this file would have seen. A question that stands in the file
    twice is asked once. Raises UserError as the readers do, or where nothing is left.
    """
    unique = {example.key: example for example in read_problems(path)}
    examples = _drawn([one for one in unique.values() if not held_out_only or split_of(one.key) == "held_out"], n, seed)
    if not examples:
        raise UserError(f"{path} leaves no question to ask", "give a file with more problems, or a larger --n")
    families = dict.fromkeys(example.family for example in examples)
    return Problems(examples, {name: FileTask(examples, name) for name in families})


def from_benchmark(benchmark: Benchmark, path: str | Path, n: int | None = None, seed: int = 0) -> Problems:
    """The questions of a benchmark's file, or `n` of them drawn by `seed`, in the file's order."""
    examples = _drawn(benchmark.read(path), n, seed)
    return Problems(examples, {example.family: benchmark for example in examples})


def _drawn(examples: list[Example], n: int | None, seed: int) -> list[Example]:
    if n is None or n >= len(examples):
        return examples
    kept = set(Random(derive_seed("evaluate file", seed)).sample(range(len(examples)), n))
    return [example for i, example in enumerate(examples) if i in kept]
