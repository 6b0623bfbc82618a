"""math-verify in a process of its own, for the answers that `maths.same` leaves open.

The process has no more than a gigabyte, writes no file, and is killed where an answer takes longer than a second; the
next one starts anew. It is given only characters that formulas are written with, and reads them by a LaTeX grammar.
Without the package (`pip install 'smallpress[math]'`) an undecided answer is wrong, and results say so.
"""

from __future__ import annotations

import json
import re
import select
import subprocess
import sys
import weakref
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from smallpress.tasks.check import CheckerError

SECONDS = 0.9  # the killing has the rest of the second
START_SECONDS = 120.0
WORKER = Path(__file__).with_name("verifier_process.py")
_FORMULA = re.compile(
    r"[A-Za-z0-9\\{}()\[\]^_+\-*/=<>|.,:!&%$ \u00d7\u00f7\u03c0\u221a\u2264\u2265\u221e\u222a\u2229]{1,400}"
)


class MathVerify:
    """Starts its process at the first question; `close` ends it."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False

    @staticmethod
    def installed() -> str | None:
        """Its version, None where it is not installed."""
        try:
            return version("math-verify") if find_spec("math_verify") else None
        except PackageNotFoundError:
            return None

    def same(self, answer: str, reference: str) -> bool:
        """Whether the answer says the same. Raises CheckerError where there is no verdict within the time."""
        if not _FORMULA.fullmatch(answer) or "__" in answer:
            return False
        process = self._running()
        line = json.dumps({"answer": answer, "reference": reference}).encode() + b"\n"
        try:
            assert process.stdin is not None
            process.stdin.write(line)
            process.stdin.flush()
        except BrokenPipeError:
            self.close()
            raise CheckerError("math-verify ended by itself") from None
        told = json.loads(self._line(process, self._seconds))
        if "error" in told:
            raise CheckerError(f"math-verify: {told['error']}")
        return told["same"] is True

    def close(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            _end(process)

    def _running(self) -> subprocess.Popen[bytes]:
        """The process, once it is ready."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._start()
        process = self._process
        assert process is not None
        if not self._ready:
            self._line(process, START_SECONDS)
            self._ready = True
        return process

    def _start(self) -> None:
        self._ready = False
        command = [sys.executable, "-I", str(WORKER)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={}, cwd="/"
        )
        weakref.finalize(self, _end, self._process)

    def _line(self, process: subprocess.Popen[bytes], seconds: float) -> bytes:
        """What the process says next. Where it says nothing it is killed, and the next one started at once."""
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], seconds)
        line = process.stdout.readline() if ready else b""
        if not line.endswith(b"\n"):
            self.close()
            if self._ready:
                self._start()
            raise CheckerError("math-verify ended by itself" if ready else f"no verdict within {seconds:g} s")
        return line


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()
