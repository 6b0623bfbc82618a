"""From the words on the command line to a verb's function, and from its errors to one line and an exit code.

Verbs are imported when they are called, so help is quick and needs no torch. To add one: write cli/<verb>.py with a
function of that name, and add its line to VERBS; its help text is the docstring's first line, which a test compares.
"""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import smallpress
from smallpress.run.errors import UserError, disk_error, one_line

if TYPE_CHECKING:
    from cyclopts import App

VERBS = {
    "pull": "Download a model into the store, checked against its SHA-256.",
    "ls": "List the models in the store, and those of the catalogue that can be pulled.",
    "run": "Talk with a model in the terminal, or ask it one question.",
    "serve": "Answer over HTTP as OpenAI's API does, with a chat page for the browser.",
    "eval": "Measure a model on held-out questions, with intervals.",
    "bench": "Measure how fast a model runs here, beside what the machine allows.",
    "plan": "Say before a run what it takes: memory, time, energy, money, and what would fit instead.",
    "convert": "Write a model as a GGUF file, in as few bits as asked, or as a Hugging Face folder.",
    "corpus": "Make a corpus to pretrain on: files of text and code in, shards of tokens and their tokenizer out.",
    "pretrain": "Make a model from random weights on a corpus, sparse or dense, on DeepSeek's published schedules.",
    "sft": "Train a model on answers: all its weights or adapters, on conversations or on pairs of answers.",
    "distill": "Let a teacher answer, keep what is right and readable, and train a student on it.",
    "grpo": "Make a model reason by reinforcement learning with checkable rewards.",
    "r1": "Climb the four stages of DeepSeek-R1: cold start, RL, rejection sampling, RL again, each measured.",
    "watch": "Show training runs in the browser while they go on: curves, samples, alarms, the time left.",
    "resume": "Go on with a run that was stopped, from its newest whole checkpoint.",
    "doctor": "Say what this machine can do, and what is missing.",
}

TIERS = {"torch": "train", "fastapi": "serve", "uvicorn": "serve"}
"""Package -> what it is installed with."""

SPINS = "2000"
"""How often one of torch's threads looks for work before it sleeps: a tenth of a millisecond. OpenMP's own 300,000 take
the processor from the thread that is waited for wherever another program runs: updates took twice as long."""

OK, FAULT, USER_ERROR, INTERRUPTED = 0, 1, 2, 130


def main() -> None:
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # Nobody asked for them, and looking takes 10 ms.
    if "TORCHELASTIC_RUN_ID" in os.environ:  # Before seconds of imports, in which torchrun may die.
        from smallpress.parallel.failure import end_with_parent

        end_with_parent()
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # Closed by whoever called, as in `smallpress ls >&-`.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        getattr(sys, name).reconfigure(errors="backslashreplace")  # What cannot be shown is shown by its number.
    sys.exit(run(sys.argv[1:]))


def run(words: Sequence[str]) -> int:
    """Run one command and return its exit code: 0, 1 for a fault of ours, 2 for the user's error, 130 for Ctrl-C."""
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)
    except UserError as error:
        return _say(str(error), USER_ERROR)
    except BrokenPipeError:
        # Whoever read our output has gone, as in `smallpress ls | head -1`: nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAULT
    except OSError as error:
        return _say(str(disk_error(error, "a file or the system failed")), USER_ERROR)
    except MemoryError:
        return _say("out of memory; choose a smaller model, batch or length", USER_ERROR)
    except Exception as error:
        missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if missing in TIERS:
            return _say(f"{words[0]} needs {missing}; pip install 'smallpress[{TIERS[missing]}]'", USER_ERROR)
        import traceback

        traceback.print_exc()
        return _say(f"this is a fault of smallpress ({type(error).__name__}); please report the lines above", FAULT)


def build(verb: str = "") -> "App":
    """The command line. The verb about to be called is given its whole docstring as help, the others one line."""
    from cyclopts import App, Parameter

    app = App(
        name="smallpress",
        help=(smallpress.__doc__ or "").partition("\n")[0],
        help_format="plaintext",
        default_parameter=Parameter(negative=""),
        version=smallpress.__version__,
        help_flags=["--help", "-h"],
        version_flags=["--version"],
        print_error=False,
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    for name, summary in VERBS.items():
        app.command(f"smallpress.cli.{name}:{name}", name=name, help=None if name == verb else summary)
    return app


def _dispatch(words: Sequence[str]) -> int:
    from cyclopts import CycloptsError

    verb = next((word for word in words if not word.startswith("-")), "")
    try:
        build(verb)(list(words))
    except CycloptsError as error:
        return _say(one_line(str(error)), USER_ERROR)
    sys.stdout.flush()
    return OK


def _say(line: str, code: int) -> int:
    print(f"smallpress: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
