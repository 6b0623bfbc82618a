"""The talk in the terminal: lines in, answers out, commands that begin with a slash."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from smallpress.cli.display import AnswerDisplay, harmless, summary
from smallpress.cli.talk import Talk
from smallpress.run.atomic import write_file
from smallpress.run.errors import UserError
from smallpress.run.settings import nearest

PROMPT, MORE = ">>> ", "... "
HELP = """\
/set NAME=VALUE   temperature, top_p, top_k, min_p, max_tokens or seed; /set alone shows them
/system TEXT      what the model is told first; /system alone takes it away
/clear            forget the conversation
/save FILE        write the conversation to a new file: JSON, or Markdown if the name ends in .md
/help             these lines
/quit             leave; so do Ctrl-D and Ctrl-C twice
A line that ends in \\ goes on in the next; \"\"\" begins and ends a text of several lines.
Ctrl-C stops an answer. A space before a / makes it an ordinary question."""


class Leave(Exception):
    """The person wants to go."""


class Repl:
    """Reads with `read` (a prompt in, a line out; EOFError and KeyboardInterrupt as `input` has them)."""

    def __init__(self, talk: Talk, model: str, read: Callable[[str], str] = input) -> None:
        self.talk, self.model, self._read = talk, model, read
        self._commands: dict[str, Callable[[str], None]] = {
            "set": self._set,
            "system": self._system,
            "clear": self._clear,
            "save": self._save,
            "help": lambda _: print(HELP),
            "quit": self._quit,
            "exit": self._quit,
        }

    def run(self) -> None:
        interrupted = False
        while True:
            try:
                text = self._read_text()
                interrupted = False
                self.obey(text)
            except (EOFError, Leave):
                print()
                return
            except KeyboardInterrupt:
                if interrupted:
                    print()
                    return
                interrupted = True
                print("\n(Ctrl-C again, or Ctrl-D, leaves)")
            except UserError as error:
                print(f"smallpress: {error}")

    def obey(self, text: str) -> None:
        """Do what one text says: a command, a question, or nothing."""
        if text.startswith("/"):
            name, _, argument = text[1:].partition(" ")
            if name not in self._commands:
                raise UserError(f"there is no command /{name}; {nearest(name, self._commands)}", "/help shows them all")
            self._commands[name](argument.strip())
        elif text.strip():
            self._ask(text.strip())

    def _read_text(self) -> str:
        line = self._read(PROMPT)
        if line.lstrip().startswith('"""'):
            return self._read_block(line.lstrip()[3:])
        lines = []
        while line.endswith("\\"):
            lines.append(line[:-1])
            line = self._read(MORE)
        return "\n".join([*lines, line])

    def _read_block(self, line: str) -> str:
        lines = []
        while '"""' not in line:
            lines.append(line)
            line = self._read(MORE)
        text = "\n".join([*lines, line.partition('"""')[0]]).strip("\n")
        return f" {text}" if text.startswith("/") else text  # a quoted text is no command

    def _ask(self, question: str) -> None:
        with interruptions() as stopped, AnswerDisplay() as display:
            for kind, text in self.talk.ask(question, stopped):
                display.show(kind, text)
        if self.talk.last is not None:
            display.note(summary(self.talk.last))

    def _set(self, argument: str) -> None:
        if argument:
            name, _, value = argument.partition("=")
            self.talk.set(name.strip().replace("-", "_"), value.strip())
        print("  ".join(f"{name}={'new each time' if v is None else v}" for name, v in self.talk.settings().items()))

    def _system(self, argument: str) -> None:
        if self.talk.form != "chat":
            raise UserError(f"the prompt form {self.talk.form} has no system text", "start again with --template chat")
        self.talk.system = argument or None
        print("the model is told this first" if argument else "the model is told nothing first")

    def _clear(self, _: str) -> None:
        self.talk.messages.clear()
        print("the conversation is forgotten")

    def _save(self, argument: str) -> None:
        path = Path(argument).expanduser()
        if not argument:
            raise UserError("/save needs the name of a file", "/save talk.json, or talk.md")
        if path.exists():
            raise UserError(f"{harmless(argument)} already exists", "choose another name")
        write_file(path, self.saved(markdown=path.suffix == ".md").encode())
        print(f"written to {harmless(argument)}")

    def saved(self, markdown: bool) -> str:
        """The conversation as the content of a file."""
        system = [{"role": "system", "content": self.talk.system}] if self.talk.system else []
        messages = [*system, *self.talk.messages]
        if not markdown:
            whole = {"model": self.model, "template": self.talk.form} | self.talk.settings() | {"messages": messages}
            return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"
        parts = [f"# A conversation with {self.model}\n"]
        for message in messages:
            quoted = message.get("reasoning_content", "").replace("\n", "\n> ")
            parts.append(
                f"## {message['role']}\n\n" + (f"> {quoted}\n\n" if quoted else "") + f"{message['content']}\n"
            )
        return "\n".join(parts)

    def _quit(self, _: str) -> None:
        raise Leave


@contextmanager
def interruptions() -> Iterator[Callable[[], bool]]:
    """While inside, the first Ctrl-C only makes the given function say True; a second one interrupts as ever.

    So an answer is stopped between two tokens, where nothing is half done.
    """
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            signal.default_int_handler(number, frame)
        pressed = True

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def talk_in_terminal(talk: Talk, model: str) -> None:
    """Until the person leaves. Lines can be edited where Python has readline."""
    with suppress(ImportError):
        import readline  # noqa: F401
    print(f"{model}: ask away; /help shows the commands", flush=True)
    if talk.form != "chat":
        print(f"(prompt form {talk.form}: each question stands alone)")
    Repl(talk, model).run()
    sys.stdout.flush()
