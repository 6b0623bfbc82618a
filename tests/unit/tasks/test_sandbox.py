import importlib.util
import os
import platform
import sys
import time
from pathlib import Path

import pytest

from smallpress.run.errors import UserError
from smallpress.tasks.sandbox import LAYERS, REQUIRED, Ended, Limits, Sandbox

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")

_spec = importlib.util.spec_from_file_location("escapes", Path(__file__).with_name("escapes.py"))
escapes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(escapes)

SHORT = Limits(cpu_seconds=1, seconds=3)
LEAST = ("privileges", "seccomp")


@pytest.fixture(scope="module")
def sandbox():
    os.environ["SMALLPRESS_TEST_SECRET"] = "in the environment"
    with Sandbox() as sandbox:
        yield sandbox
    del os.environ["SMALLPRESS_TEST_SECRET"]


class Rows:
    """One process for all rows of a table; a row that ends it gets out of nothing, and the next gets another."""

    def __init__(self, sandbox: Sandbox, layers: tuple[str, ...]):
        self.sandbox, self.layers, self.process = sandbox, layers, None

    def ask(self, expression: str) -> dict:
        every, self.sandbox.layers = self.sandbox.layers, self.layers
        self.process = self.process or self.sandbox.start(Limits(cpu_seconds=20, seconds=120))
        self.sandbox.layers = every
        try:
            return self.process.ask({"value": expression})
        except Ended as end:
            self.close()
            return {"raised": ["Ended", str(end)]}

    def close(self):
        if self.process is not None:
            self.process.close()
        self.process = None


@pytest.fixture(scope="module", params=["every layer", "the least layers"])
def confined(request, sandbox):
    rows = Rows(sandbox, sandbox.layers if request.param == "every layer" else LEAST)
    yield rows
    rows.close()


def left_over() -> list[Path]:
    folders = [Path(folder) for folder in ("/tmp", "/dev/shm", ".", "/")]
    return [path for folder in folders if folder.is_dir() for path in folder.glob(f"*{escapes.MARK}*")]


def processes_of(session: int) -> list[str]:
    """Those of one session, by /proc's stat: the sixth field, the fourth after the name in brackets."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:  # It ended meanwhile.
            continue
        state, _, _, its_session = text.rpartition(")")[2].split()[:4]
        if int(its_session) == session and state != "Z":
            found.append(text)
    return found


@pytest.mark.parametrize("expression", escapes.EXPRESSIONS)
def test_no_way_out_by_python(confined, expression):
    answer = confined.ask(expression)
    assert "raised" in answer or answer["value"] in (None, False, ["l"]), answer
    assert confined.ask("6 * 7") == {"value": 42}
    assert not left_over()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86-64")
@pytest.mark.parametrize("name", escapes.CALLS)
def test_no_way_out_by_a_system_call(confined, name):
    zeros = ", ".join(["0"] * 6)
    asked = f"__import__('ctypes').CDLL(None).syscall({escapes.CALLS[name]}, {zeros})"
    assert confined.ask(asked) == {"value": -1}


@pytest.mark.parametrize("name", escapes.ENDS)
def test_what_would_never_end_is_ended(sandbox, name):
    began = time.monotonic()
    with sandbox.start(SHORT) as process, pytest.raises(Ended):
        process.ask({"run": escapes.ENDS[name]})
        process.ask({"value": "1"})
    assert time.monotonic() - began < 60


def test_a_process_may_not_use_more_than_its_memory(sandbox):
    with sandbox.start(Limits(memory_bytes=256 << 20)) as process:
        assert process.ask({"run": "text = 'x' * (300 << 20)"})["raised"][0] == "MemoryError"
        assert process.ask({"run": "text = 'x' * (30 << 20)"}) == {"value": None}
        with pytest.raises(Ended, match="too long"):
            process.ask({"value": "text"})


def test_a_gigabyte_of_output_goes_nowhere(sandbox):
    with sandbox.start() as process:
        assert process.ask({"run": "import os\nblock = b'x' * (16 << 20)\nfor _ in range(64): os.write(1, block)"}) == {
            "value": None
        }


def test_what_is_written_on_the_channel_is_no_message(sandbox):
    with sandbox.start() as process, pytest.raises(Ended, match="wrote on the channel"):
        process.ask({"run": 'import os\nos.write(3, b"x" * 16 + bytes([0, 0, 0, 11]) + b\'{"value":1}\')'})


def test_a_nested_answer_is_refused_and_does_no_harm(sandbox):
    with sandbox.start() as process:
        process.ask({"run": "deep = []\nfor _ in range(10 ** 5): deep = [deep]"})
        assert process.ask({"value": "deep"})["raised"][0] == "ValueError"


def test_two_processes_know_nothing_of_each_other(sandbox):
    with sandbox.start() as one, sandbox.start() as other:
        one.ask({"run": "import math; math.pi = 3; x = 1"})
        assert other.ask({"value": "x"})["raised"][0] == "NameError"
        assert other.ask({"value": "__import__('math').pi"})["value"] > 3.1


def test_below_the_required_layers_nothing_runs():
    with pytest.raises(UserError, match="lacks another"):
        Sandbox(required=(*REQUIRED, "another"))


def test_the_layers_that_hold_are_told(sandbox):
    assert set(REQUIRED) <= set(sandbox.layers) <= set(LAYERS)


def test_nothing_is_left_when_the_program_ends():
    sandbox = Sandbox()
    process = sandbox.start()
    process.send({"run": "while True: pass"})
    session = sandbox._program.pid
    assert processes_of(session)
    sandbox.close()
    process.close()
    assert not processes_of(session) and not left_over()
