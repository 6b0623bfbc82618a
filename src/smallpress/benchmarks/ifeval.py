"""IFEval: 541 prompts with instructions a program can check (Zhou et al. 2023, arXiv 2311.07911)."""

from smallpress.benchmarks.benchmark import Benchmark
from smallpress.benchmarks.instructions import LEFT_OUT, check_instruction
from smallpress.run.errors import UserError
from smallpress.tasks import answers
from smallpress.tasks.example import Example, Reading, Verdict
from smallpress.tasks.records import Record, string


class IFEval(Benchmark):
    """An answer is right where it follows every instruction of its prompt: the strict accuracy by prompt.

    The lenient reading is the paper's loose one: without the first line, the last line, or the asterisks will do too.
    Instructions that need a library are left out (`instructions.LEFT_OUT`), with the prompts that hold them.
    """

    name = "ifeval"
    file = 'input_data.jsonl: JSON lines of "prompt", "instruction_id_list" and "kwargs"'
    prompt = "{question}"

    def problem(self, record: Record, where: str) -> Example:
        names, settings = record.get("instruction_id_list"), record.get("kwargs")
        if not isinstance(names, list) or not isinstance(settings, list) or len(names) != len(settings) or not names:
            raise UserError(f'{where} lacks "instruction_id_list" or "kwargs"', f"give {self.file}")
        kept = [{key: value for key, value in (one or {}).items() if value is not None} for one in settings]
        return self.ask(string(record, "prompt", where), ", ".join(names), meta={"names": names, "settings": kept})

    def read(self, path: object) -> list[Example]:
        problems = super().read(path)  # type: ignore[arg-type]
        return [problem for problem in problems if not LEFT_OUT & set(problem.meta["names"])]

    def check(self, example: Example, completion: str, reading: Reading = "strict", opened: bool = False) -> Verdict:
        well_formed = answers.format_ok(completion, opened)
        answer = completion.rpartition("</think>")[2].strip()
        if not answer:
            return Verdict(False, None, well_formed, "no answer")
        readings = [answer]
        if reading == "lenient":
            lines = answer.split("\n")
            cut = ["\n".join(part).strip() for part in (lines, lines[1:], lines[:-1], lines[1:-1])]
            readings = [*cut, *(text.replace("*", "") for text in cut)]
        asked = list(zip(example.meta["names"], example.meta["settings"], strict=True))
        broken = [
            name
            for name, settings in asked
            if not any(text and check_instruction(name, settings, text) for text in readings)
        ]
        return Verdict(not broken, answer, well_formed, f"broke {', '.join(broken)}" if broken else "right")
