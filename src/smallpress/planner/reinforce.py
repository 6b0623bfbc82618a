"""RL on many chips, phase by phase: rollouts whose longest answer everybody waits for, rewards, the reference model's
view, updates. The chips take turns at them, as in DeepSeek-R1 (the 2025 revision, appendix B.1)."""

from dataclasses import dataclass

from smallpress.model.config import ModelConfig
from smallpress.model.sizes import multiply_adds
from smallpress.planner.cluster import Layout, cluster_memory, step_cost
from smallpress.planner.fleet import Fleet
from smallpress.planner.grpo import Rehearsed
from smallpress.planner.learning import Learned
from smallpress.planner.lengths import Lengths
from smallpress.planner.machine import SHARES, Machine
from smallpress.planner.model import Planned
from smallpress.planner.place import catalogued
from smallpress.planner.plan import Phase, Plan
from smallpress.planner.rates import OVERHEAD, Cost, plus, times
from smallpress.planner.remedies import SPARE, three
from smallpress.planner.work import prompt_flops


@dataclass(frozen=True, slots=True)
class Stage:
    """`steps` of `batch` answers each; `rollout` answers are drawn at once and then learned from in several steps.

    `tokens_a_step`: of decoding with drafts, as measured with multi-token prediction; `turn`: seconds to unload one
    phase's model and load the next's; `reward`: seconds that checkers and reward models add after the last answer;
    `packed`: tokens of a training row, which several answers share.
    """

    steps: int
    lengths: Lengths
    batch: int = 512
    rollout: int = 8192
    n_prompt: int = 300
    experts: int = 64
    tokens_a_step: float = 1.8
    turn: float = 30.0
    reward: float = 30.0
    packed: int = 32_768
    with_reference: bool = True


def stage_of(asked: Rehearsed, experts: int) -> Stage:
    """A recipe's run, without drafts."""
    n = asked.n_rollouts
    packed = round(max(asked.micro_batch_tokens, asked.n_prompt + asked.lengths.longest))
    return Stage(
        steps=round(asked.steps),
        lengths=asked.lengths,
        batch=n // asked.updates_per_rollout or n,
        rollout=n,
        n_prompt=asked.n_prompt,
        experts=experts,
        tokens_a_step=1.0,
        packed=packed,
        with_reference=asked.with_reference,
    )


def plan_stages(planned: Planned, machine: Machine, stages: dict[str, Stage], chips: int, layout: Layout) -> Plan:
    config, phases = planned.config, []
    for name, stage in stages.items():
        n_answers = stage.steps * stage.batch
        n_rounds = n_answers / stage.rollout / SHARES[machine.kind].up
        new, middle = n_answers * stage.lengths.mean, stage.n_prompt + stage.lengths.mean / 2
        learned = 3 * n_answers * prompt_flops(config, stage.n_prompt + stage.lengths.mean)
        work = {"rollout": (new, 2 * new * multiply_adds(config, middle)), "update": (0.0, learned)}
        for phase, cost in round_costs(planned, machine, stage, chips, layout).items():
            phases.append(Phase(f"{name}: {phase}", times(n_rounds, cost), *work.get(phase, (0.0, 0.0))))
    first, program = next(iter(stages.values())), catalogued(machine).program[True]
    packed = Learned(1.0, first.packed, first.packed, first.packed, "fp8", "adamw16")
    memory, room = cluster_memory(config, packed, layout, program), SPARE * machine.memory * 1e9

    def fits(other: ModelConfig) -> bool:
        return sum(cluster_memory(other, packed, layout, program).values()) <= room

    needed, deeper = sum(memory.values()), layout.model_copy(update={"pipeline": 2 * layout.pipeline})
    settings = []
    if sum(cluster_memory(config, packed, deeper, program).values()) <= room:
        settings.append(f"--layout pipeline={deeper.pipeline},experts={deeper.experts}")
    return Plan(
        activity="grpo",
        model=planned.name,
        machine=machine,
        n_chips=chips,
        memory=memory,
        room=room,
        phases=tuple(phases),
        figures={"hours": sum(phase.seconds for phase in phases) / 3600},
        remedies=() if needed <= room else three(settings, needed, config, machine.kind, fits),
    )


def round_costs(planned: Planned, machine: Machine, stage: Stage, chips: int, layout: Layout) -> dict[str, Cost]:
    """Seconds of one round: a rollout of `stage.rollout` answers and the steps that learn from it."""
    config, place = planned.config, catalogued(machine)
    fleet = Fleet(config, machine, stage.experts)
    n_rows = stage.rollout / chips
    rolling: Cost = fleet.prefill(n_rows * stage.n_prompt, stage.n_prompt)
    for n_steps, share, at in stage.lengths.stretches():
        # A draft and its check are a row each.
        one = fleet.decode(max(1.0, 2 * n_rows * share), stage.n_prompt + at)
        rolling = plus(rolling, times(n_steps / stage.tokens_a_step, one))
    tokens = stage.rollout * (stage.n_prompt + stage.lengths.mean)
    asked = Learned(tokens, round(tokens), stage.packed, stage.packed, "fp8", "adamw16")
    _, learning = step_cost(config, place.rates, machine, asked, layout)
    n_updates = stage.rollout / stage.batch
    reference = times(1 / 3, learning) if stage.with_reference else {}
    return {
        "rollout": rolling,
        "reward": {OVERHEAD: stage.reward},
        "reference": reference,
        "update": plus(learning, {OVERHEAD: 2.0 * n_updates}),
        "changing places": {OVERHEAD: 3 * stage.turn},
    }
