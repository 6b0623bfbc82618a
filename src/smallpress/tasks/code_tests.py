"""Unit tests for a model's code: `run_tests` gives a verdict that the code cannot write.

The code lives in one confined process, which gets calls and gives back values; what is expected never enters it.
`assert f(2, [3]) == expected` is split: the call is evaluated there, the other side here where it is a literal, or in
a second confined process. Tests that cannot be split so run in that second process, with a function in the place of
the code's that asks the first one over the pipe and hands on plain data.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from smallpress.tasks.plain_data import decode, encode
from smallpress.tasks.sandbox import Confined, Ended, Limits, Sandbox, shared_sandbox

MAX_CODE_CHARS = 200_000
MAX_CALLS = 20_000
_WRAPPERS = {"abs", "bool", "dict", "float", "int", "len", "list", "round", "set", "sorted", "str", "sum", "tuple"}
"""Functions that may stand round a call inside the code's process: they hold nothing of what is expected."""


@dataclass(frozen=True, slots=True)
class UnitTests:
    """Tests as source text. `names`: what the code must define; none given: every name that is unknown in them.

    `setup` runs after the code, in its process, and makes inputs; `trusted` runs before the tests, outside of it, and
    holds functions of theirs. A module that defines `check(candidate)` has it called with the first name.
    """

    source: str
    names: Sequence[str] = ()
    setup: str = ""
    trusted: str = ""


@dataclass(frozen=True, slots=True)
class CodeVerdict:
    """`passed`, and in a sentence what failed first."""

    passed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One split assertion: `asked` is evaluated beside the code, `expected` elsewhere; None: `asked` must be true."""

    asked: str
    expected: str | None
    negated: bool = False


class _Failed(Exception):
    """A test said no; the text says which."""


def run_tests(code: str, tests: UnitTests, limits: Limits | None = None, sandbox: Sandbox | None = None) -> CodeVerdict:
    """Whether `code` passes all of `tests`. Raises UserError where this machine has no sandbox, SyntaxError for a
    test that is no Python.
    """
    limits, sandbox = limits or Limits(), sandbox or shared_sandbox()
    module = ast.parse(tests.source)
    if len(code) > MAX_CODE_CHARS:
        return CodeVerdict(False, f"the code is longer than {MAX_CODE_CHARS} characters")
    try:
        with sandbox.start(limits) as candidate:
            _value(candidate.ask({"run": code}), "the code")
            if tests.setup:
                _value(candidate.ask({"run": tests.setup}), "the tests' setup")
            claims = split_claims(module, tests)
            if claims is None:
                _run_beside(candidate, module, tests, limits, sandbox)
            else:
                _check_claims(candidate, claims, tests, limits, sandbox)
    except (_Failed, Ended) as failure:
        return CodeVerdict(False, str(failure))
    return CodeVerdict(True, "passed")


def run_cases(
    code: str, entry: str, cases: Sequence[tuple[Sequence[Any], Any]], limits: Limits | None = None
) -> CodeVerdict:
    """The same for cases of numbers, texts and lists: (arguments, expected value). True is not 1, a tuple no list."""
    if len(code) > MAX_CODE_CHARS:
        return CodeVerdict(False, f"the code is longer than {MAX_CODE_CHARS} characters")
    try:
        with shared_sandbox().start(limits) as candidate:
            _value(candidate.ask({"run": code}), "the code")
            for arguments, expected in cases:
                shown = f"{entry}({', '.join(map(repr, arguments))})"
                request = {"call": entry, "args": encode(list(arguments)), "named": encode({})}
                answer = candidate.ask(request)
                _value(answer, shown)
                if repr(answer["value"]) != repr(encode(expected)):
                    raise _Failed(f"{shown} is wrong")
    except (_Failed, Ended) as failure:
        return CodeVerdict(False, str(failure))
    return CodeVerdict(True, "passed")


def _value(answer: dict[str, Any], what: str) -> Any:
    if "value" in answer:
        try:
            return decode(answer["value"])
        except ValueError:
            raise _Failed(f"{what} gave no plain data") from None
    kind = answer.get("raised")
    name = kind[0] if isinstance(kind, list) and kind and isinstance(kind[0], str) else "something"
    raise _Failed(f"{what} raised {name[:60]}")


# Split assertions ----------------------------------------------------------------------------------------------------


def split_claims(module: ast.Module, tests: UnitTests) -> list[Claim] | None:
    """The assertions as claims, None where one of them, or a statement between them, does not split."""
    body, name = _assertions(module)
    theirs = {name} if name else set(tests.names) or _unknown_names(module)
    if tests.trusted and not name:
        return None
    claims = []
    for node in body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        claim = _claim(node, theirs, bool(tests.setup)) if isinstance(node, ast.Assert) else None
        if claim is None:
            return None
        claims.append(claim)
    if not name:
        return claims
    return [Claim(_renamed(claim.asked, name, tests.names[0]), claim.expected, claim.negated) for claim in claims]


def _assertions(module: ast.Module) -> tuple[list[ast.stmt], str]:
    """The body of `check(candidate)` with the name of its argument, or the module's own statements."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name == "check" and len(node.args.args) == 1:
            return node.body, node.args.args[0].arg
    return module.body, ""


def _claim(node: ast.Assert, theirs: set[str], has_setup: bool) -> Claim | None:
    test, negated = node.test, False
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        test, negated = test.operand, True
    if isinstance(test, ast.Constant) and not negated:
        return Claim("True", None) if test.value else None
    if isinstance(test, ast.Call) and _asks_only(test, theirs, has_setup):
        return Claim(ast.unparse(test), None, negated)
    if negated or not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return None
    left, right, operator = test.left, test.comparators[0], test.ops[0]
    is_constant = isinstance(operator, ast.Is) and isinstance(right, ast.Constant)
    if not (isinstance(operator, ast.Eq) or is_constant):
        return None
    if _asks_only(right, theirs, has_setup):
        left, right = right, left
    if not _asks_only(left, theirs, has_setup) or _names(right) - set(dir(builtins)):
        return None
    return Claim(ast.unparse(left), ast.unparse(right))


def _asks_only(node: ast.expr, theirs: set[str], has_setup: bool) -> bool:
    """A call of one of their functions, perhaps inside a wrapper, whose arguments are made of plain values."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return False
    if node.func.id in _WRAPPERS - theirs and len(node.args) == 1 and not node.keywords:
        return _asks_only(node.args[0], theirs, has_setup)
    known = theirs | set(dir(builtins))
    return node.func.id in theirs and (has_setup or _names(node) <= known)


def _names(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _unknown_names(module: ast.Module) -> set[str]:
    """Names that the module reads, and neither it nor Python defines."""
    bound = set(dir(builtins))
    read: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return read - bound


def _renamed(source: str, old: str, new: str) -> str:
    tree = ast.parse(source, mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == old:
            node.id = new
    return ast.unparse(tree)


def _check_claims(candidate: Confined, claims: list[Claim], tests: UnitTests, limits: Limits, sandbox: Sandbox) -> None:
    for claim in claims:
        value = _value(candidate.ask({"value": claim.asked}), claim.asked)
        expected = not claim.negated if claim.expected is None else _expected(claim.expected, limits, sandbox)
        try:
            right = bool(value) == expected if claim.expected is None else bool(value == expected)
        except (ArithmeticError, TypeError, ValueError, RecursionError):
            right = False
        if not right:
            raise _Failed(f"{claim.asked} is wrong")


def _expected(source: str, limits: Limits, sandbox: Sandbox) -> Any:
    try:
        return ast.literal_eval(source)
    except ValueError:
        with sandbox.start(limits) as other:
            return _value(other.ask({"value": source}), source)


# Tests beside the code -----------------------------------------------------------------------------------------------


def _run_beside(candidate: Confined, module: ast.Module, tests: UnitTests, limits: Limits, sandbox: Sandbox) -> None:
    """Run the tests in a process of their own, whose calls of the code's functions come through here."""
    theirs = set(tests.names) or _unknown_names(module)
    source = tests.source + (f"\ncheck({tests.names[0]})\n" if _assertions(module)[1] else "")
    with sandbox.start(limits) as judge:
        if tests.trusted:
            _value(judge.ask({"run": tests.trusted}), "the tests' own functions")
        _value(judge.ask({"remote": sorted(theirs)}), "the tests")
        judge.send({"run": source})
        for _ in range(MAX_CALLS):
            message = judge.receive()
            if "call" not in message:
                _value(message, "a test")
                return
            answer = candidate.ask({key: message[key] for key in ("call", "args", "named")})
            judge.send(_cleaned(answer))
    raise _Failed(f"the tests call more than {MAX_CALLS} times")


def _cleaned(answer: dict[str, Any]) -> dict[str, Any]:
    """The code's answer as a message of ours: nothing but what decodes and encodes again."""
    try:
        return {"value": encode(_value(answer, "a call"))}
    except _Failed as failure:
        return {"raised": [_kind(answer), str(failure)]}


def _kind(answer: dict[str, Any]) -> str:
    raised = answer.get("raised")
    return raised[0] if isinstance(raised, list) and raised and isinstance(raised[0], str) else "RuntimeError"
