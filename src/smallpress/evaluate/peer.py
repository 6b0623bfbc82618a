"""llama.cpp beside us in one run: a child process, idle while we are measured."""

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from smallpress.evaluate.speed import Trial
from smallpress.run.errors import UserError

SIDE = Path(__file__).with_name("llama_cpp_side.py")
HOW = "pip install llama-cpp-python==0.3.36, or name a Python that has it: --peer-python"


class LlamaCpp:
    """Use as a context; afterwards `memory` is the peak of its process in bytes."""

    def __init__(self, python: str, model: Path, n_threads: int):
        words = [python, str(SIDE), str(model), str(n_threads)]
        try:
            self._child = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        except OSError as error:
            raise UserError(f"{words[0]} cannot be started ({error.strerror})", HOW) from error
        self.version: str = self._answer()["version"]
        self.memory = 0

    def rate(self, trial: Trial, seed: int) -> float:
        """As `speed.rate`."""
        prompt, new = trial.n_prompt, trial.n_new
        return self._ask(
            {"sequences": trial.n_running, "context": trial.length, "prompt": prompt, "new": new, "seed": seed}
        )

    def _ask(self, request: dict[str, int]) -> float:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(request) + "\n")
        self._child.stdin.flush()
        return float(self._answer()["rate"])

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout is not None and self._child.stderr is not None
        line = self._child.stdout.readline()
        if not line:
            why = self._child.stderr.read().strip().splitlines() or ["it said nothing"]
            self._end()
            raise UserError(f"llama.cpp ended: {why[-1]}", HOW)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._child.stdin is not None
        if error is None:
            self._child.stdin.close()
            self.memory = int(self._answer()["memory"])
        self._end()

    def _end(self) -> None:
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout, self._child.stderr):
            assert stream is not None
            stream.close()
