"""The benchmarks by name: `smallpress eval MODEL --bench NAME --data FILE`."""

from __future__ import annotations

import difflib

from smallpress.benchmarks.aime import AIME
from smallpress.benchmarks.bbh import BBH
from smallpress.benchmarks.benchmark import Benchmark, MathsBenchmark
from smallpress.benchmarks.cmath import CMATH
from smallpress.benchmarks.code import CodeBenchmark, RunTests
from smallpress.benchmarks.gpqa import GPQA
from smallpress.benchmarks.gsm8k import GSM8K
from smallpress.benchmarks.humaneval import HumanEval
from smallpress.benchmarks.ifeval import IFEval
from smallpress.benchmarks.jsonl import Jsonl
from smallpress.benchmarks.math500 import Math500
from smallpress.benchmarks.mbpp import MBPP
from smallpress.benchmarks.mgsm import MGSM
from smallpress.benchmarks.mmlu import MMLU
from smallpress.benchmarks.svamp import SVAMP
from smallpress.run.errors import UserError
from smallpress.tasks.code_tests import run_tests
from smallpress.tasks.verifier import MathVerify

KINDS: tuple[type[Benchmark], ...] = (
    *(GSM8K, Math500, AIME, SVAMP, MGSM, CMATH),
    *(BBH, MMLU, GPQA, IFEval, HumanEval, MBPP, Jsonl),
)
BENCHMARKS = {kind.name: kind for kind in KINDS}


def open_benchmark(name: str, verifier: MathVerify | None = None, run_tests: RunTests = run_tests) -> Benchmark:
    """The benchmark of that name, with what judges its answers. Raises UserError naming the nearest one."""
    kind = BENCHMARKS.get(name)
    if kind is None:
        near = difflib.get_close_matches(name, BENCHMARKS, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"choose from {', '.join(BENCHMARKS)}"
        raise UserError(f"there is no benchmark {name!r}", remedy)
    if issubclass(kind, CodeBenchmark):
        return kind(run_tests)
    return kind(verifier) if issubclass(kind, MathsBenchmark) else kind()
