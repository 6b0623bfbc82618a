"""Published runs computed from their inputs with the catalogue's one set of shares: `smallpress plan --published`."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from smallpress.planner.cluster import best_layout, layout_from, plan_cluster
from smallpress.planner.fleet import Fleet
from smallpress.planner.learning import Learned
from smallpress.planner.lengths import all_of, spread_out
from smallpress.planner.machine import machine_named
from smallpress.planner.model import Planned, known_models
from smallpress.planner.place import catalogued
from smallpress.planner.reinforce import Stage, plan_stages
from smallpress.planner.serving import Serving, plan_serving

V3_LAYOUT = "pipeline=16,experts=64,schedule=dualpipe,overlap=true"
LONG_LAYOUT = "pipeline=16,tensor=4,experts=8,schedule=zerobubble,overlap=true"
"""Of long sequences, sliced over four chips; the paper does not say its own."""


@dataclass(frozen=True, slots=True)
class Row:
    """`source` is of the published figure; `note` says what in the inputs is assumed."""

    name: str
    inputs: str
    unit: str
    published: float
    computed: float
    source: str
    note: str = ""

    @property
    def ratio(self) -> float:
        return self.computed / self.published

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": round(self.ratio, 3)}


def rows() -> list[Row]:
    return [*pretraining(), *reinforcement(), *production(), *small_boards()]


def pretraining() -> Iterator[Row]:
    report = "arXiv 2412.19437, table 1 and section 4"
    each = chip_hours("deepseek-v3", Learned(1e12, 15_360 * 4096, 4096, 4096, "fp8", "adamw16"), 2048, V3_LAYOUT)
    yield Row("DeepSeek-V3, a trillion tokens", "2,048 h800, PP16 EP64, DualPipe, FP8", "K h", 180, each / 1e3, report)
    whole = 14.8 * each
    yield Row("DeepSeek-V3, pre-training", "14.8T tokens", "K h", 2664, whole / 1e3, report)
    longer = 0.0
    for length, batch in ((32_768, 1920), (131_072, 480)):
        asked = Learned(1000.0 * length * batch, length * batch, length, length, "fp8", "adamw16")
        longer += chip_hours("deepseek-v3", asked, 2048, LONG_LAYOUT)
    assumed = "how long rows are sliced is assumed"
    yield Row("DeepSeek-V3, longer context", "1,000 steps at 32K, at 128K", "K h", 119, longer / 1e3, report, assumed)
    price = machine_named("h800").price
    after = 5e3  # as published: nothing is said from which it could be computed
    cost = price * (whole + longer + after) / 1e6
    yield Row("DeepSeek-V3, all of it", "2 dollars an hour; 5K h after as given", "M$", 5.576, cost, report)
    v2 = Learned(1e12, 9216 * 4096, 4096, 4096, "bfloat16", "adamw")
    v2_hours = chip_hours("deepseek-v2", v2, 2048, "pipeline=16,experts=8,schedule=zerobubble")
    source = "arXiv 2405.04434, section 3.2.3"
    yield Row(
        "DeepSeek-V2, a trillion tokens", "2,048 h800, PP16 EP8, zero bubble", "K h", 172.8, v2_hours / 1e3, source
    )
    dense = Learned(1e12, 4608 * 4096, 4096, 4096, "bfloat16", "adamw")
    hours = chip_hours("deepseek-llm-67b", dense, 2048)
    fastest = "the fastest layout that fits"
    yield Row("DeepSeek LLM 67B, a trillion", f"2,048 h800, {fastest}", "K h", 300.6, hours / 1e3, source, fastest)
    card = "Meta Llama 3 model card, April 2024"
    largest = Learned(1e12, 16_777_216, 8192, 8192, "bfloat16", "adamw")
    config, layout = known_models()["llama-3-405b"], "pipeline=16,tensor=8,schedule=interleaved,chunks=8"
    place = catalogued(machine_named("h100"))
    plan = plan_cluster(Planned("llama-3-405b", config, {}), place, largest, layout_from(layout, config, 16_384))
    speed, inputs = plan.figures["model FLOP/s a chip, 10^12"], "16,384 h100, TP8 PP16 interleaved, batches of 16M"
    herd = "arXiv 2407.21783, table 4"
    yield Row("llama-3-405b", inputs, "TFLOP/s a chip", 400, speed, herd, "a layer a stage, as its balance suggests")
    for name, chips, published in (("llama-3-70b", 16_384, 6400), ("llama-3-8b", 8192, 1300)):
        hours = chip_hours(name, Learned(15e12, 16_000_000, 8192, 8192, "bfloat16", "adamw"), chips)
        inputs = f"15T tokens, {chips:,} h100, {fastest}"
        yield Row(name, inputs, "K h", published, hours / 1e3, card, "chips and batch assumed")


def chip_hours(model: str, asked: Learned, chips: int, layout: str | None = None) -> float:
    machine = "h100" if model.startswith("llama") else "h800"
    planned, place = Planned(model, known_models()[model], {}), catalogued(machine_named(machine))
    config = planned.config
    chosen = best_layout(config, place, asked, chips) if layout is None else layout_from(layout, config, chips)
    return plan_cluster(planned, place, asked, chosen).chip_hours


def reinforcement() -> Iterator[Row]:
    """Lengths: R1-Zero's mean answer rises to about ten thousand tokens by step 8,200 and goes on from about fifteen
    thousand once 65,536 are allowed (the reports' figures, read off)."""
    planned, machine = Planned("deepseek-v3", known_models()["deepseek-v3"], {}), machine_named("h800")
    layout = layout_from("pipeline=8,experts=32,schedule=1f1b,overlap=true", planned.config, 512)
    zero = {
        "to 32K": Stage(8200, spread_out(5000, 32_768, 1.0)),
        "to 65K": Stage(2200, spread_out(15_000, 65_536, 1.0)),
    }
    source, lengths = "arXiv 2501.12948 (2025), table 7", "mean lengths read off the reports' curves"
    hours = plan_stages(planned, machine, zero, 512, layout).chip_hours
    yield Row("R1-Zero", "10,400 steps of 512, rollouts of 8,192, 512 h800", "K h", 101, hours / 1e3, source, lengths)
    r1 = {
        "reasoning": Stage(2500, spread_out(8000, 32_768, 1.0)),
        "all": Stage(1700, spread_out(6000, 32_768, 1.0)),
    }
    hours = plan_stages(planned, machine, r1, 512, layout).chip_hours
    guessed = "the first stage's 2,500 steps are a guess: nobody says them"
    yield Row("R1, both stages of RL", "2,500 and 1,700 steps of 512", "K h", 41, hours / 1e3, source, guessed)


def production() -> Iterator[Row]:
    """Input tokens count those found in the cache, 56.3 % of them; 84 sequences a chip are what 14.8k tokens a second
    at 22 each come to."""
    config, machine = known_models()["deepseek-v3"], machine_named("h800")
    source, n_context, n_prompt, known = "open-infra-index, day 6", 4989, 4096, 0.563
    fresh = 16_384.0
    seconds = sum(Fleet(config, machine, 32).prefill(fresh, n_prompt, known * n_prompt).values())
    rate = machine.chips_in_box * fresh / seconds / (1 - known) / 1e3
    busy = "published: a day's average; computed: always busy"
    yield Row("production, in", "EP32, 56.3 % of prompts known", "K tokens/s a node", 73.7, rate, source, busy)
    n_rows = 14_800 / 22 / machine.chips_in_box
    seconds = sum(Fleet(config, machine, 144).decode(n_rows, n_context).values())
    rate = machine.chips_in_box * n_rows / seconds / 1e3
    yield Row("production, out", "EP144, 84 sequences a chip of 4,989", "K tokens/s a node", 14.8, rate, source, busy)


BOARDS = (
    ("pi-5", "qwen2.5-0.5b", "int8", "Q8_0", 19.87, "ggml-org/llama.cpp #26484, the model by its files' sizes"),
    ("pi-5", "qwen2.5-0.5b", "int4", "Q4_K_M", 25.77, "ggml-org/llama.cpp #26484, the model by its files' sizes"),
    ("pi-5", "tinyllama-1.1b", "int8", "Q8_0", 9.0, "J. Tunney, LLaMA now goes faster on CPUs, 2024"),
    ("pi-5-16gb", "llama-3-8b", "int4", "Q4_K_M", 2.17, "geerlingguy/ai-benchmarks #7"),
    ("pi-4", "tinyllama-1.1b", "int8", "Q8_0", 3.0, "J. Tunney, LLaMA now goes faster on CPUs, 2024"),
)
"""Decoding of one sequence with llama.cpp and its kin: machine, model, our nearest format, the file's, tokens a second,
source."""


def small_boards() -> Iterator[Row]:
    for machine, model, format, file, published, source in BOARDS:
        place = catalogued(machine_named(machine))
        plan = plan_serving(Planned(model, known_models()[model], {}), place, Serving(format, 1, 16, all_of(256)))
        rate = plan.figures["decode tokens a second"]
        yield Row(f"{machine}, {model}", f"{file}; computed in {format}", "tokens/s", published, rate, source)
