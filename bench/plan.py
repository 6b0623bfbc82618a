"""What the planner says beside what this machine does: `python bench/plan.py`, about ten minutes on two cores.

Every run is a process of its own, so that the most memory it ever held is its own: decoding and prefill through the
engine at various numbers of sequences and in various number formats, and GRPO steps of various sizes, dtypes and
optimizers, of SmolLM2-135M and of a model of random weights. The machine is measured first (`--probe`: again). Every
answer has its full length and every group is trained on, so that plan and run do the same work. A ratio is the plan
over what was measured. With OMP_NUM_THREADS=1 both count the processor's own seconds, which is how to compare them on a
machine that others use too; and so is --turns where the machine's own speed changes from minute to minute.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from smallpress.planner.measure import clock
from smallpress.run.machine import peak_resident

SMALL = "dim=320,layers=12,inter=896,heads=5,kv_heads=5,head_dim=64,vocab=16384"
MODEL = "smollm2-135m"
GENERATED = ("decode tokens a second", "prefill tokens a second")


@dataclass(frozen=True, slots=True)
class Run:
    """`n_running` sequences of `n_prompt` tokens and `n_new` more; for GRPO prompts and answers of a group."""

    name: str
    kind: str  # generate or grpo
    model: str
    format: str
    n_running: int = 1
    n_prompt: int = 128
    n_new: int = 64
    n_prompts: int = 0
    dtype: str = "bfloat16"
    optimizer: str = "adamw"
    micro_batch_tokens: int = 2048


RUNS = (
    Run("135M, 8 bits, 1 sequence", "generate", MODEL, "int8"),
    Run("135M, 8 bits, 8", "generate", MODEL, "int8", 8),
    Run("135M, 8 bits, 64", "generate", MODEL, "int8", 64, 32),
    Run("135M, 4 bits, 1", "generate", MODEL, "int4"),
    Run("135M, 4 bits, 32", "generate", MODEL, "int4", 32, 32),
    Run("135M, bf16, 1", "generate", MODEL, "bfloat16"),
    Run("135M, bf16, 16, long prompts", "generate", MODEL, "bfloat16", 16, 512, 32),
    Run("small, 8 bits, 32", "generate", SMALL, "int8", 32, 32),
    Run("135M, GRPO 4 x 4 x 32, bf16", "grpo", MODEL, "int8", 4, n_new=32, n_prompts=4),
    Run(
        "135M, GRPO 8 x 8 x 32, bf16, 8-bit AdamW", "grpo", MODEL, "int8", 8, n_new=32, n_prompts=8, optimizer="adamw8"
    ),
    Run("135M, GRPO 2 x 4 x 16, fp32", "grpo", MODEL, "int8", 4, n_new=16, n_prompts=2, dtype="float32"),
    Run("small, GRPO 8 x 8 x 64, fp32", "grpo", SMALL, "int8", 8, n_new=64, n_prompts=8, dtype="float32"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--probe", action="store_true", help="measure the machine again first")
    parser.add_argument(
        "--turns", action="store_true", help="measure it before and after every run; the plan is between"
    )
    parser.add_argument("--only", default="", help="runs whose name holds this")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(_side(RUNS[int(options.side)])))
        return
    from smallpress.planner.probe import this_place

    chosen = [(i, run) for i, run in enumerate(RUNS) if options.only in run.name]
    learning = any(run.kind == "grpo" for _, run in chosen)
    began = time.perf_counter()
    place = this_place(options.probe or options.turns, learning)
    print(f"machine: {place.machine.title}, probe ready after {time.perf_counter() - began:.1f} s", file=sys.stderr)
    found = []
    for i, run in chosen:
        command = [sys.executable, __file__, "--side", str(i)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        measured = json.loads(done.stdout.splitlines()[-1])
        asked = measured.pop("n_prompt", run.n_prompt), measured.pop("n_shared", 0)
        foreseen = _foreseen(run, place, *asked)
        if options.turns:
            place = this_place(True, learning)
            after = _foreseen(run, place, *asked)
            foreseen = {key: (foreseen[key] + after[key]) / 2 for key in foreseen}
        found.append({"run": run.name, "measured": measured, "plan": {key: foreseen[key] for key in measured}})
        _tell(found[-1])
    report = {"date": datetime.now(UTC).isoformat(timespec="minutes"), "machine": platform.processor(), "runs": found}
    if options.json:
        print(json.dumps(report, indent=1))


def _tell(found: dict[str, Any]) -> None:
    parts = []
    for key, value in found["measured"].items():
        scale, unit = (1e9, " GB") if key == "peak memory" else (1.0, "")
        plan = found["plan"][key]
        parts.append(f"{key} {plan / scale:.4g} / {value / scale:.4g}{unit} = {plan / value:.2f}")
    print(f"{found['run']:44s} {'; '.join(parts)}", file=sys.stderr, flush=True)


def _foreseen(run: Run, place: Any, n_prompt: float, n_shared: float) -> dict[str, float]:
    """By the planner alone, of the same work."""
    from smallpress.planner.grpo import Rehearsed, plan_grpo
    from smallpress.planner.lengths import all_of
    from smallpress.planner.model import planned_model
    from smallpress.planner.serving import Serving, plan_serving

    planned = planned_model(run.model)
    if run.kind == "generate":
        asked = Serving(run.format, run.n_running, run.n_prompt, all_of(run.n_new), run.n_running)
        plan = plan_serving(planned, place, asked)
        # Of all prompts together, as they are measured.
        figures = dict(plan.figures) | {GENERATED[1]: run.n_running * run.n_prompt / plan.phases[0].seconds}
    else:
        asked = Rehearsed(
            steps=1,
            prompts_per_step=run.n_prompts,
            group_size=run.n_running,
            train_on=run.n_running,
            lengths=all_of(run.n_new),
            n_prompt=round(n_prompt),
            n_shared=round(n_shared),
            micro_batch_tokens=run.micro_batch_tokens,
            dtype=run.dtype,
            optimizer=run.optimizer,
            rollout_format=run.format,
        )
        plan = plan_grpo(planned, place, asked)
        figures = dict(plan.figures)
    return figures | {"peak memory": plan.peak_memory}


def _side(run: Run) -> dict[str, float]:
    time.perf_counter = clock()
    found = _generate(run) if run.kind == "generate" else _grpo(run)
    return found | {"peak memory": peak_resident()}


def _generate(run: Run) -> dict[str, float]:
    """Medians of three turns after one; decoding is timed from the first token of all on."""
    import numpy as np

    from smallpress.cli.open_engine import PAGE_SIZE
    from smallpress.engine.engine import Engine
    from smallpress.engine.native_runner import NativeRunner
    from smallpress.engine.request import Request, SamplingParams
    from smallpress.model.shapes import tensor_shapes
    from smallpress.planner.measure import drawn
    from smallpress.planner.model import from_numbers

    n_pages = run.n_running * -(-(run.n_prompt + run.n_new) // PAGE_SIZE) + run.n_running
    if run.model == MODEL:
        from smallpress.weights.load import open_model
        from smallpress.weights.reference import resolve

        files = open_model(resolve(run.model))
        files.tokenizer()  # what `smallpress run` holds besides
        runner = NativeRunner.from_files(files, run.format, PAGE_SIZE, n_pages)
    else:
        config = from_numbers(run.model)
        named = {name: drawn(config, name) for name in tensor_shapes(config)}
        runner = NativeRunner(config, named, PAGE_SIZE, n_pages, packing=run.format)
        del named
    laps: dict[str, list[float]] = {name: [] for name in GENERATED}
    for turn in range(4):
        engine = Engine(runner, run.n_running)
        draw = np.random.default_rng(turn)
        for i in range(run.n_running):
            ids = tuple(draw.integers(2, runner.vocab_size, run.n_prompt).tolist())
            engine.submit(Request(ids, SamplingParams(max_tokens=run.n_new + 1, temperature=1.0, seed=i)))
        began = time.perf_counter()
        begun: set[int] = set()
        while len(begun) < run.n_running:
            begun |= {piece.request_id for piece in engine.step()}
        prompts = time.perf_counter()
        n_left = 0
        while engine.busy:
            n_left += len(engine.step())
        ended = time.perf_counter()
        if turn:
            laps[GENERATED[0]].append(n_left / (ended - prompts))
            laps[GENERATED[1]].append(run.n_running * run.n_prompt / (prompts - began))
    return {name: median(values) for name, values in laps.items()}


def _grpo(run: Run) -> dict[str, float]:
    """The second and third of three steps; the tokenizer is SmolLM2's, its ids cut to a small vocabulary."""
    import torch

    from smallpress.cli.open_engine import engine_over
    from smallpress.model.transformer import Transformer, init_weights
    from smallpress.optim.master import MasterWeights
    from smallpress.planner.model import from_numbers
    from smallpress.rl.rollout import Speech, speech
    from smallpress.rl.settings import GRPOSettings
    from smallpress.rl.trainer import Trainer
    from smallpress.tasks.task import TASKS
    from smallpress.tasks.worked import worked_example
    from smallpress.weights.load import load_transformer, open_model
    from smallpress.weights.reference import resolve

    path = resolve(MODEL)
    files = open_model(path)
    own = speech(files.tokenizer(), "r1_zero_example", worked_example)
    if run.model == MODEL:
        model = load_transformer(path)
    else:
        model = Transformer(from_numbers(run.model))
        init_weights(model, 0.02, 0)
    n_ids = model.config.vocab_size
    prompts: list[list[int]] = []

    def encode(example: Any) -> list[int]:
        prompts.append([id % n_ids for id in own.encode(example)])
        return prompts[-1]

    settings = GRPOSettings(
        model=run.model,
        tasks=("chained_sum:3",),
        curriculum=False,
        prompts_per_step=run.n_prompts,
        group_size=run.n_running,
        max_tokens=run.n_new,
        steps=3,
        dtype=run.dtype,
        optimizer=run.optimizer,
        micro_batch_tokens=run.micro_batch_tokens,
    )

    class Whole(Trainer):
        def _teaches(self, group: Any) -> bool:
            return True

    weights = MasterWeights(model, getattr(torch, run.dtype), optimizer=run.optimizer)
    engine = engine_over(model, run.format, run.n_prompts * run.n_running, 512)
    del model
    trainer = Whole(settings, weights, engine, Speech(encode, own.decode, frozenset(), lambda: None), TASKS)
    logs = []
    for _ in range(3):
        logs.append(trainer.step()[0])
    rollout, update = (median(log[f"seconds/{name}"] for log in logs[1:]) for name in ("rollout", "update"))
    alike = min(_n_alike(prompts[0], other) for other in prompts[1:])
    return {
        "seconds a step": rollout + update,
        "seconds of rollout": rollout,
        "seconds of update": update,
        "n_prompt": sum(map(len, prompts)) / len(prompts),
        "n_shared": alike,
    }


def _n_alike(left: list[int], right: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
