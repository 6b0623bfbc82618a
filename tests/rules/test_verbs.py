"""The command line is a promise: its verbs, and the commands README shows, which must be real."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from smallpress.cli.main import VERBS, build

ROOT = Path(__file__).parents[2]
FROZEN_VERBS = [
    "pull", "ls", "run", "serve", "eval", "bench", "plan", "convert", "corpus", "pretrain", "sft", "distill", "grpo",
    "r1", "watch", "resume", "doctor",
]  # fmt: skip
FROZEN_TARGETS = ["help", "setup", "demo", "check", "test", "bench"]


def shown_commands() -> list[str]:
    """Every line of README's shell blocks, comments and prompts cut off, continued lines joined."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.join(shlex.split(line.removeprefix("$ "), comments=True)) for line in lines if line.strip()]


def targets() -> list[str]:
    return re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_verbs_are_frozen():
    assert list(VERBS) == FROZEN_VERBS
    assert targets() == FROZEN_TARGETS


@pytest.mark.parametrize("name", VERBS)
def test_help_shows_the_first_line_of_each_verbs_docstring(name):
    function = getattr(importlib.import_module(f"smallpress.cli.{name}"), name)
    assert function.__doc__.partition("\n")[0] == VERBS[name]


def test_every_command_in_readme_is_real():
    commands = shown_commands()
    assert any(command.startswith("smallpress ") for command in commands) and "make test" in commands
    for command in commands:
        words = [word for word in command.split() if "=" not in word or word.startswith("-")]
        if words[0] == "make":
            assert set(words[1:]) <= set(targets()), command
        if words[0] == "smallpress":
            build(words[1]).parse_args(shlex.split(command)[1:], print_error=False, exit_on_error=False)
