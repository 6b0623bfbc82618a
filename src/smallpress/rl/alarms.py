"""What tells that a rising reward is no rising skill. An alarm is a sentence for the person, never a silent change."""

import math
from collections import deque
from collections.abc import Sequence


def repeated_share(ids: Sequence[int], n: int = 4) -> float:
    """Share of n-grams that are repeats of an earlier one: 0 for fresh text, near 1 for a loop.

    >>> repeated_share([1, 2, 3, 4, 5, 6]), repeated_share([7] * 11)
    (0.0, 0.875)
    """
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


JUDGES_MAY_FAIL = 0.01
"""Of the answers of a step."""


class Alarms:
    """Watches the metrics of each step; `check` returns the sentences that hold now."""

    WINDOW = 10

    def __init__(self) -> None:
        self.lengths: deque[float] = deque(maxlen=5 * self.WINDOW)
        self.rewards: deque[float] = deque(maxlen=5 * self.WINDOW)
        self.evals: list[tuple[float, float]] = []  # (held-out accuracy, mean training reward at that time)
        self.n_skipped = 0

    def check(self, metrics: dict[str, float]) -> list[str]:
        found = []
        if math.isfinite(metrics.get("reward", math.nan)):
            self.lengths.append(metrics["completions/mean_length"])
            self.rewards.append(metrics["reward"])
        if len(self.lengths) >= 2 * self.WINDOW:
            early = sum(list(self.lengths)[: self.WINDOW]) / self.WINDOW
            late = sum(list(self.lengths)[-self.WINDOW :]) / self.WINDOW
            gain = sum(list(self.rewards)[-self.WINDOW :]) - sum(list(self.rewards)[: self.WINDOW])
            if late > 2 * early and gain <= 0:
                found.append(
                    f"answers grew from {early:.0f} to {late:.0f} tokens and the reward did not: length blow-up"
                )
        if metrics.get("completions/repeated_share", 0.0) > 0.5:
            found.append("more than half of the text repeats itself: the model has fallen into loops")
        if metrics.get("skipped", 0.0):
            self.n_skipped += 1
            found.append(f"a step was skipped (NaN or a gradient spike): {self.n_skipped} so far")
        if metrics.get("skipped_groups", 0.0):
            found.append(f"{metrics['skipped_groups']:.0f} groups were left out: a reward part gave NaN or infinity")
        for name, share in metrics.items():
            if name.startswith("judges/") and share > JUDGES_MAY_FAIL:
                judge = name.split("/")[1]
                found.append(f"the judge of {judge} failed to score {share:.0%} of the answers: their groups are lost")
        if "eval/accuracy" in metrics and self.rewards:
            recent = list(self.rewards)[-self.WINDOW :]
            self.evals.append((metrics["eval/accuracy"], sum(recent) / len(recent)))
            found += self._diverging()
        return found

    def _diverging(self) -> list[str]:
        if len(self.evals) < 3:
            return []
        (was, reward_was), _, (now, reward_now) = self.evals[-3:]
        if now < was - 0.05 and reward_now > reward_was:
            return [f"the reward rises while held-out accuracy fell from {was:.2f} to {now:.2f}: reward hacking"]
        return []

    def state(self) -> dict:
        return {
            "lengths": list(self.lengths),
            "rewards": list(self.rewards),
            "evals": self.evals,
            "n_skipped": self.n_skipped,
        }

    def restore(self, state: dict) -> None:
        self.lengths = deque(state["lengths"], maxlen=5 * self.WINDOW)
        self.rewards = deque(state["rewards"], maxlen=5 * self.WINDOW)
        self.evals = [tuple(pair) for pair in state["evals"]]
        self.n_skipped = state["n_skipped"]
