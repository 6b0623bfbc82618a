"""Where experts lie: busy ones get copies, and copies go where they even out the load (DeepSeek's EPLB, 2025).

Groups of experts are packed onto nodes, so that node-limited routing stays within few of them; within a node the
busiest expert a copy gets one more until the places are full; the copies are packed onto the node's chips.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Placement:
    """`expert_of[place]`: the expert whose weights lie there, the places of a chip following one another.
    `places_of[expert]`: where its copies lie."""

    expert_of: tuple[int, ...]
    n_chips: int

    @property
    def places_of(self) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in range(max(self.expert_of) + 1)]
        for place, expert in enumerate(self.expert_of):
            found[expert].append(place)
        return found

    def chip_loads(self, loads: Sequence[float]) -> list[float]:
        """Of each chip, an expert's load shared evenly by its copies."""
        copies, each = [len(places) for places in self.places_of], len(self.expert_of) // self.n_chips
        shares = [loads[expert] / copies[expert] for expert in self.expert_of]
        return [sum(shares[chip * each : (chip + 1) * each]) for chip in range(self.n_chips)]

    def imbalance(self, loads: Sequence[float]) -> float:
        """The busiest chip over the mean: how much longer a layer takes than if all were even."""
        chips = self.chip_loads(loads)
        return max(chips) * len(chips) / sum(chips)


def place_experts(loads: Sequence[float], n_places: int, n_groups: int, n_nodes: int, n_chips: int) -> Placement:
    """`loads`: tokens of each expert, groups following one another. Groups that do not divide among the nodes are
    taken as one, on one node.

    >>> loads = [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86]  # the published example's first layer
    >>> place_experts(loads, n_places=16, n_groups=4, n_nodes=2, n_chips=8).expert_of
    (5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1)
    """
    assert n_places >= len(loads) and n_places % n_chips == 0 and n_chips % n_nodes == 0 and len(loads) % n_groups == 0
    if n_groups % n_nodes:
        n_groups, n_nodes = 1, 1
    size = len(loads) // n_groups
    groups = packed([sum(loads[g * size : (g + 1) * size]) for g in range(n_groups)], n_nodes)
    places: list[int] = []
    for members in groups:
        own = [group * size + i for group in members for i in range(size)]
        copies = replicated([loads[expert] for expert in own], n_places // n_nodes)
        counts = [copies.count(i) for i in range(len(own))]
        chips = packed([loads[own[i]] / counts[i] for i in copies], n_chips // n_nodes)
        places += [own[copies[j]] for chip in chips for j in chip]
    return Placement(tuple(places), n_chips)


def packed(weights: Sequence[float], n_packs: int) -> list[list[int]]:
    """Equal numbers to each pack: the heaviest left goes to the lightest pack that has room.

    >>> packed([4, 3, 2, 1], 2)
    [[0, 3], [1, 2]]
    """
    assert len(weights) % n_packs == 0
    room, packs, held = len(weights) // n_packs, [[] for _ in range(n_packs)], [0.0] * n_packs  # type: ignore[var-annotated]
    for i in sorted(range(len(weights)), key=lambda i: -weights[i]):
        pack = min((p for p in range(n_packs) if len(packs[p]) < room), key=lambda p: held[p])
        packs[pack].append(i)
        held[pack] += weights[i]
    return packs


def replicated(loads: Sequence[float], n_places: int) -> list[int]:
    """The expert of each place: one of each, then one more of whichever has the most load a copy.

    >>> replicated([10, 90, 20], 5)
    [0, 1, 2, 1, 1]
    """
    found, counts = list(range(len(loads))), [1] * len(loads)
    while len(found) < n_places:
        busiest = max(range(len(loads)), key=lambda i: loads[i] / counts[i])
        found.append(busiest)
        counts[busiest] += 1
    return found
