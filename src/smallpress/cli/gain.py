"""What a run gained: the model asked before, along the way and after, and the difference on the same questions."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from smallpress.cli.table import table
from smallpress.run.atomic import write_file
from smallpress.run.progress import Progress

if TYPE_CHECKING:
    from smallpress.engine.engine import Engine
    from smallpress.evaluate.baseline import Baseline
    from smallpress.evaluate.result import Problem, Result
    from smallpress.rl.settings import GRPOSettings
    from smallpress.tokenizer.tokenizer import Tokenizer

BEFORE, AFTER, RESULT = "before.json", "after.json", "result.json"


@dataclass(frozen=True, slots=True)
class Exam:
    """Held-out questions, the same at every sitting, put to the model as it is now."""

    settings: "GRPOSettings"
    engine: "Engine"
    tokenizer: "Tokenizer"

    def look(self) -> dict[str, float]:
        """The quick one between steps: greedy, the run's own form, strict."""
        return self._ask(self.settings.eval_n, "held-out problems").metrics()

    def before(self, folder: Path) -> "Baseline":
        """The untrained model at its best over forms and readings; what the folder holds is not asked again."""
        from smallpress.evaluate.baseline import Baseline, answers_needed, baseline
        from smallpress.evaluate.problems import held_out
        from smallpress.evaluate.result import read_json, save_json, validated
        from smallpress.tasks.worked import worked_example

        path, settings = folder / BEFORE, self.settings
        if path.exists():
            return validated(Baseline, read_json(path), path)
        problems = held_out(settings.eval_pairs, settings.measure_n, seed=0)
        total = answers_needed(len(problems.examples), 1)
        with Progress("asking the untrained model", total=total, unit="answers") as progress:
            found = baseline(
                self.engine,
                self.tokenizer,
                problems.examples,
                problems.tasks,
                worked_example,
                Path(settings.model).name,
                samples=1,
                temperature=0.6,
                max_tokens=settings.eval_max_tokens,
                seed=settings.seed,
                on_answer=progress.advance,
            )
        save_json(path, found)
        return found

    def after(self, folder: Path) -> "Result":
        """The trained model as in `look`, on the questions of `before`; what the folder holds is not asked again."""
        from smallpress.evaluate.baseline import load_result

        path = folder / AFTER
        if path.exists():
            return load_result(path)
        result = self._ask(self.settings.measure_n, "asking the trained model")
        result.save(path)
        return result

    def _ask(self, n: int, label: str) -> "Result":
        from smallpress.evaluate.evaluate import evaluate
        from smallpress.evaluate.problems import held_out
        from smallpress.evaluate.result import Sampling
        from smallpress.tasks.worked import worked_example

        problems = held_out(self.settings.eval_pairs, n, seed=0)
        with Progress(label, total=len(problems.examples), unit="answers") as progress:
            return evaluate(
                self.engine,
                self.tokenizer,
                problems.examples,
                problems.tasks,
                self.settings.form,
                Sampling(samples=1, temperature=0.0, max_tokens=self.settings.eval_max_tokens),
                "strict",
                Path(self.settings.model).name,
                worked_example,
                on_answer=progress.advance,
            )


def seconds_of(before: "Baseline") -> float:
    """What the baseline took; two readings share the answers of one way of asking."""
    return sum({(one.form, str(one.sampling)): one.seconds for one in before.results}.values())


def write_gain(folder: Path, before: "Result", after: "Result", seconds: float) -> None:
    """Write result.json and show it. `seconds` are those of the whole run, measuring included."""
    from smallpress.evaluate.compare import compare
    from smallpress.evaluate.tables import comparison_grid

    comparison = compare(before, after)
    result = comparison.model_dump(mode="json", by_alias=True)
    for end, measured in (("before", before), ("after", after)):
        share = result[end]["value"]
        result[end] |= {"pass_at_1": share, "template": measured.form, "extraction": measured.reading}
    result["seconds"] = round(seconds, 1)
    write_file(folder / RESULT, json.dumps(result, indent=1).encode() + b"\n")
    grid = comparison_grid(comparison)
    print(f"\n{grid.title}\n\n{table(grid.rows)}\n")
    print(three_thoughts(before, after))


def three_thoughts(before: "Result", after: "Result") -> str:
    """Three held-out problems with what the model wrote before and after: of different kinds, the hardest first."""
    old = {(problem.family, problem.key): problem for problem in before.problems}
    shown: dict[tuple[str, int], Problem] = {}
    for problem in sorted(after.problems, key=lambda problem: -(problem.steps or 0)):
        shown.setdefault((problem.family, problem.level), problem)
    parts = []
    for problem in list(shown.values())[:3]:
        parts.append(f"{problem.prompt}   (the answer is {problem.reference})")
        for when, asked in (("before", old[problem.family, problem.key]), ("after", problem)):
            mark = "right" if asked.answers[0].correct else "wrong"
            parts.append(f"  {when}, {mark}: {' '.join(asked.answers[0].text.split())}")
    return "\n".join(parts)
