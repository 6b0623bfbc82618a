"""HumanEval and MBPP in the sandbox: every reference solution must pass, and a mutant of each must fail.

python bench/sandbox.py [humaneval=HumanEval.jsonl.gz mbpp=mbpp.jsonl] [--first N]

A mutant is the reference with one change by its syntax tree: a comparison turned round, an operator exchanged, a number
one higher, a return of None. Where one mutant passes, the next one is tried, up to MUTANTS of them: a change that the
tests cannot see (dead code, an equal program) is no fault of the sandbox. The names of those that remain are printed.
"""

import argparse
import ast
import copy
import time
from collections.abc import Iterator
from pathlib import Path

from smallpress.tasks.code_files import CODE_READERS, CodeFile
from smallpress.tasks.sandbox import Limits

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FILES = [f"humaneval={DATA}/humaneval/HumanEval.jsonl.gz", f"mbpp={DATA}/mbpp/mbpp.jsonl"]
MUTANTS = 8
FOR_MUTANTS = Limits(cpu_seconds=1)  # Many never end.
OPPOSITE = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
            ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is}  # fmt: skip
EXCHANGED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
             ast.Mod: ast.Add, ast.Pow: ast.Mult, ast.BitXor: ast.BitOr, ast.BitAnd: ast.BitOr}  # fmt: skip


def changed(node: ast.AST) -> bool:
    """Change the node in place, where there is a change for it."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OPPOSITE:
        node.ops[0] = OPPOSITE[type(node.ops[0])]()
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in EXCHANGED:
        node.op = EXCHANGED[type(node.op)]()
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        node.value += 1
    elif isinstance(node, ast.Return) and node.value is not None:
        node.value = ast.Constant(None)
    else:
        return False
    return True


def mutants(source: str) -> Iterator[str]:
    """Programs with one change each: of differing places, then None returned everywhere."""
    tree = ast.parse(source)
    places = [n for n, node in enumerate(ast.walk(tree)) if changed(copy.deepcopy(node))]
    returns = [n for n, node in enumerate(ast.walk(tree)) if n in places and isinstance(node, ast.Return)]
    for n in [place for place in places if place not in returns] + returns[::-1]:
        mutant = copy.deepcopy(tree)
        changed(list(ast.walk(mutant))[n])
        yield ast.unparse(mutant)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", metavar="NAME=PATH", default=FILES)
    parser.add_argument("--first", type=int, help="only the first so many problems of each file")
    arguments = parser.parse_args()
    for argument in arguments.files:
        name, _, path = argument.partition("=")
        measure(CodeFile(CODE_READERS[name](path), name), arguments.first)


def measure(task: CodeFile, first: int | None) -> None:
    problems = (task.problems("train") + task.problems("held_out"))[:first]
    n_right, n_first, n_caught, n_verdicts, began = 0, 0, 0, 0, time.monotonic()
    for problem in problems:
        task.limits = CodeFile.limits
        verdict = task.run(problem, problem.reference)
        n_right += verdict.passed
        n_verdicts += 1
        if not verdict.passed:
            print(f"reference fails: {problem.prompt[:70]!r}: {verdict.reason[:150]!r}", flush=True)
        task.limits = FOR_MUTANTS
        for n, mutant in zip(range(MUTANTS), mutants(problem.reference), strict=False):
            n_verdicts += 1
            if not task.run(problem, mutant).passed:
                n_first += n == 0
                n_caught += 1
                break
        else:
            print(f"no mutant fails: {problem.prompt[:70]!r}", flush=True)
    seconds = (time.monotonic() - began) / n_verdicts
    print(f"{task.name}: {len(problems)} problems, {n_right} references pass, {n_caught} have a mutant that fails "
          f"({n_first} at first), {1000 * seconds:.1f} ms a verdict over {n_verdicts}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
