"""smallpress run, as a person meets it: on a terminal of its own, in a pipe, and with a hand on Ctrl-C."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest

from smallpress.cli.main import run

COMMAND = [sys.executable, "-m", "smallpress.cli.main", "run"]
PLAIN = ["--dtype", "float32", "--seed", "3", "--max-tokens", "12"]
ENDED = "the program ended"
PATIENCE = 150.0  # seconds; the machine may be busy


class Terminal:
    """A program on a pseudo-terminal, driven by typing and waiting."""

    def __init__(self, *words: object, **environment: str):
        self._master, slave = pty.openpty()
        environment = os.environ | {"TERM": "xterm-256color", "PYTHON_BASIC_REPL": "1"} | environment
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, words)], stdin=slave, stdout=slave, stderr=slave, env=environment,
            start_new_session=True, preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(slave)
        self.seen = ""

    def wait_for(self, pattern: str, press: str = "") -> str:
        """Read until the pattern is there; the text up to its end, taken away.

        `press` is typed every few seconds meanwhile: a Ctrl-C that comes while Python is only preparing to read a line
        waits for the next key.
        """
        ends, next_press = time.monotonic() + PATIENCE, 0.0
        while (match := re.search(pattern, self.seen)) is None:
            assert time.monotonic() < ends, f"waited for {pattern!r}, saw {self.seen[-2000:]!r}"
            if press and time.monotonic() > next_press:
                self.type(press)
                next_press = time.monotonic() + 3.0
            if select.select([self._master], [], [], 0.2)[0]:
                self.seen += self._read()
        text, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return text

    def _read(self) -> str:
        try:
            return os.read(self._master, 65536).decode(errors="replace")
        except OSError:  # Linux's way of saying that the program has closed the terminal
            return ENDED

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> int:
        """The exit code, once the program has ended by itself."""
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            os.close(self._master)


def _take_terminal() -> None:
    """Ctrl-C reaches only the session whose terminal it is."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_talk_with_ctrl_c_during_an_answer(tiny_model, tmp_path):
    terminal = Terminal(tiny_model, "--dtype", "float32", "--seed", "3", "--max-tokens", "900")
    assert "ask away" in terminal.wait_for(">>> ")
    terminal.type("Hello\n")
    terminal.wait_for("Hello\r\n.+")
    terminal.type("\x03")
    assert "Traceback" not in terminal.wait_for(r"\d+ tokens.*, stopped")
    terminal.wait_for(">>> ")
    terminal.type("/set max_tokens=4\n")
    terminal.wait_for(r"max_tokens=4")
    terminal.wait_for(">>> ")
    terminal.type("again\\\n")
    terminal.wait_for(r"\.\.\. ")
    terminal.type("and again\n")
    terminal.wait_for(r"4 tokens.*, cut off at the limit")
    terminal.wait_for(">>> ")
    terminal.type(f"/save {tmp_path / 'talk.json'}\n")
    terminal.wait_for("written to")
    terminal.wait_for(">>> ")
    terminal.wait_for(r"Ctrl-C again, or Ctrl-D, leaves\)\r\n>>> ", press="half a line\x03")
    terminal.wait_for(ENDED, press="\x04")
    assert terminal.end() == 0
    questions = [turn["content"] for turn in json.loads((tmp_path / "talk.json").read_text())["messages"]]
    assert questions[0] == "Hello" and "again\nand again" in questions


def test_ctrl_c_twice_at_an_empty_prompt_leaves(tiny_model):
    terminal = Terminal(tiny_model, *PLAIN, NO_COLOR="1")
    terminal.wait_for(">>> ")
    terminal.wait_for(r"Ctrl-C again, or Ctrl-D, leaves\)\r\n>>> ", press="\x03")
    terminal.wait_for(ENDED, press="\x03")
    assert terminal.end() == 0


def ask(*words, stdin=subprocess.DEVNULL, **options):
    command = [*COMMAND, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, stdin=stdin, **options)


def test_one_question_gives_one_answer_and_the_same_seed_the_same(tiny_model):
    done = ask(tiny_model, "What is 2 + 2?", *PLAIN)
    assert done.returncode == 0 and done.stdout.endswith("\n") and len(done.stdout) > 1, done.stderr
    assert "\x1b" not in done.stdout
    answer = json.loads(ask(tiny_model, "What is 2 + 2?", *PLAIN, "--json").stdout)
    assert answer["answer"].strip() == done.stdout.strip()
    assert answer["finish_reason"] in ("stop", "length") and 1 <= answer["usage"]["completion_tokens"] <= 12
    assert set(answer) == {
        *("model", "answer", "thinking", "finish_reason", "usage", "seconds", "tokens_per_second"),
        *("drafted_tokens", "accepted_tokens"),
    }  # fmt: skip


def test_what_is_piped_in_belongs_to_the_question(tiny_model, tmp_path):
    (tmp_path / "notes.txt").write_text("some notes " * 20)
    lengths = []
    for words, file in (([], "notes.txt"), (["Summarise:"], "notes.txt"), (["Summarise:"], os.devnull)):
        with open(tmp_path / file) as stdin:
            done = ask(tiny_model, *words, *PLAIN, "--json", stdin=stdin)
        lengths.append(json.loads(done.stdout)["usage"]["prompt_tokens"])
    assert lengths[1] > lengths[0] > lengths[2]


def test_the_plain_forms_ask_without_a_template(tiny_model):
    assert ask(tiny_model, "What is 2 + 2?", *PLAIN, "--template", "r1_zero").returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["./no-such-model", "q"], "./no-such-model does not exist"),
        (["MODEL", "q", "--temperature", "-1"], "temperature is -1"),
        (["MODEL", "q", "--top-p", "0"], "top_p is 0"),
        (["MODEL", "q", "--seed", "-1"], "seed is -1"),
        (["MODEL", "q", "--max-tokens", "0"], "max_tokens is 0"),
        (["MODEL", "q", "--dtype", "int3"], "int3"),
        (["MODEL", "q", "--template", "r1_zero", "--system", "s"], "has no system text"),
        (["MODEL", "--json"], "--json is for one question"),
        (["MODEL", " "], "the question is empty"),
        (["MODEL", "long " * 2000], "the prompt has"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(words, said, tiny_model, capfd, monkeypatch):
    monkeypatch.setattr("smallpress.cli.run._piped_text", lambda: None)
    assert run(["run", *(str(tiny_model) if word == "MODEL" else word for word in words)]) == 2
    out, err = capfd.readouterr()
    assert out == "" and said in err and err.count("\n") == 1


def test_the_real_model_answers_and_thinks_of_nothing(smollm2):
    done = ask(smollm2, "What is the capital of France?", "--temperature", "0", "--dtype", "float32", "--json")
    answer = json.loads(done.stdout)
    assert answer["answer"] == "The capital of France is Paris." and answer["thinking"] == ""
    assert answer["finish_reason"] == "stop" and answer["usage"]["prompt_tokens"] == 37
