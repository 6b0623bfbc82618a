"""The table of families and levels in docs/tasks.md: `python -m smallpress.tasks.table` prints it."""

from __future__ import annotations

from smallpress.tasks.task import FAMILIES


def markdown_tables() -> str:
    """One row a family (what its level and its step mean), then one row a level with an example."""
    lines = ["| family | level | one step |", "|---|---|---|"]
    lines += [f"| `{family.name}` | {family.level_means} | {family.step_means} |" for family in FAMILIES]
    lines += ["", "| family | level | example | reference | steps |", "|---|---|---|---|---|"]
    for family in FAMILIES:
        for level in family.levels:
            example = next(family.examples("train", seed=0, level=level))
            steps = example.meta["steps"]
            lines.append(f"| `{family.name}` | {level} | {example.prompt} | {example.reference} | {steps} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown_tables())
