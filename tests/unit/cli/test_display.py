import io
import sys

import pytest

from smallpress.cli.display import AnswerDisplay, harmless

PIECES = [("thinking", "2 +"), ("thinking", " 2"), ("answer", "4"), ("answer", "!")]


def shown(out, err=None):
    with AnswerDisplay(out, err or io.StringIO()) as display:
        for kind, text in PIECES:
            display.show(kind, text)
    return out.getvalue()


@pytest.fixture
def colours(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def test_on_a_terminal_thinking_is_dim_and_apart(terminal, colours):
    text = shown(terminal)
    assert "\x1b[2m2 +\x1b[0m" in text
    assert text.replace("\x1b[2m", "").replace("\x1b[0m", "") == "2 + 2\n\n4!\n"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_without_colour_lines_say_what_is_thinking(terminal, colours, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert shown(terminal) == "[thinking]\n2 + 2\n[end of thinking]\n\n4!\n"


def test_in_a_file_stands_the_answer_alone():
    out, err = io.StringIO(), io.StringIO()
    assert shown(out, err) == "4!\n" and err.getvalue() == "2 + 2\n"


def test_what_is_said_about_an_answer_is_for_the_person_not_for_the_file(terminal, colours):
    out = io.StringIO()
    AnswerDisplay(out).note("9 tokens")
    AnswerDisplay(terminal).note("9 tokens")
    assert out.getvalue() == "" and terminal.getvalue() == "\x1b[2m9 tokens\x1b[0m\n"


@pytest.mark.parametrize("text", ["\x1b[2J", "\x9b2J", "\x07", "\r", "\x08", "\u202e", "\u2066", "\x00", "\x7f"])
def test_no_text_of_a_model_steers_the_terminal(text):
    assert harmless(text).isprintable()
    assert harmless("中\t👩‍👩‍👧\n") == "中\t👩‍👩‍👧\n"


def test_markup_of_rich_in_an_answer_is_shown_as_it_is(terminal, colours):
    with AnswerDisplay(terminal) as display:
        display.show("thinking", "[bold]a[/bold] [red] :smile: ")
        display.show("thinking", "\n ")
        display.show("thinking", "b")
    plain = terminal.getvalue().replace("\x1b[2m", "").replace("\x1b[0m", "")
    assert plain == "[bold]a[/bold] [red] :smile: \n b\n"


def test_each_piece_is_written_at_once(monkeypatch):
    flushed = []
    out = io.StringIO()
    monkeypatch.setattr(out, "flush", lambda: flushed.append(out.getvalue()))
    display = AnswerDisplay(out, sys.stderr)
    display.show("answer", "a")
    display.show("answer", "b")
    assert flushed == ["a", "ab"]
