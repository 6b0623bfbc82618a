"""A process of many ends with the one that started it, and says which it is when another is lost."""

import signal
import subprocess
import sys

import pytest

from smallpress.parallel.failure import named
from smallpress.run.errors import UserError

CHILD = """
import time
from smallpress.parallel.failure import end_with_parent
end_with_parent()
print("ready", flush=True)
time.sleep(100)
"""
COMMAND_LINE = """
import os, time
from smallpress.cli import main
os.environ["TORCHELASTIC_RUN_ID"] = "test"
main.run = lambda words: print("ready", flush=True) or time.sleep(100)
main.main()
"""


def test_a_lost_neighbour_is_one_line_with_this_rank():
    with (
        pytest.raises(
            UserError, match=r"^rank 1 of 4 lost touch with another: Connection closed by peer \[127.0.0.1\]:3411;"
        ),
        named(1, 4),
    ):
        raise RuntimeError(
            "[../third_party/gloo/pair.cc:544] Connection closed by peer [127.0.0.1]:3411. This is\nmore"
        )


def test_another_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="shapes"), named(1, 4):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
@pytest.mark.parametrize("child", [CHILD, COMMAND_LINE], ids=["joined", "before a verb is imported"])
def test_a_process_is_killed_with_the_one_that_started_it(child):
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "ready\n"
        parent.send_signal(signal.SIGKILL)
        assert parent.stdout.read() == ""  # comes to an end only when the child has closed it, too
