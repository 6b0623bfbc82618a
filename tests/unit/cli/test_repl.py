import json
import os
import signal

import pytest

from smallpress.cli.repl import Repl, interruptions
from smallpress.run.errors import UserError


@pytest.fixture
def converse(make_talk, typed, capsys):
    """Type lines at a conversation: (the conversation, what was printed, the prompts that were shown)."""

    def go(lines, *answers, **options):
        talk, read, prompts = make_talk(*answers, **options), typed(lines), []
        Repl(talk, "tiny", lambda prompt: prompts.append(prompt) or read(prompt)).run()
        return talk, capsys.readouterr().out, prompts

    return go


def test_questions_get_answers_until_the_input_ends(converse):
    talk, out, prompts = converse(["one", "  ", "two"], "eins", "zwei")
    assert out == "eins\nzwei\n\n" and prompts == [">>> "] * 4
    assert [message["content"] for message in talk.messages] == ["one", "eins", "two", "zwei"]


def test_a_line_that_ends_in_a_backslash_goes_on(converse):
    talk, _, prompts = converse(["one\\", "two\\", "three"], "a")
    assert talk.messages[0]["content"] == "one\ntwo\nthree" and prompts[:3] == [">>> ", "... ", "... "]


def test_three_quotes_hold_several_lines_even_a_slash(converse):
    talk, _, prompts = converse(['"""', "/usr is", "", 'a folder"""', '"""one line"""'], "a", "b")
    assert [talk.messages[0]["content"], talk.messages[2]["content"]] == ["/usr is\n\na folder", "one line"]
    assert prompts[1:4] == ["... "] * 3


def test_a_space_before_a_slash_makes_a_question(converse):
    talk, _, _ = converse([" /help me"], "a")
    assert talk.messages[0]["content"] == "/help me"


def test_set_changes_how_answers_are_drawn(converse):
    talk, out, _ = converse(["/set", "/set temperature=0.2", "/set top-k = 5", "/set seed=3", "q"], "a")
    assert "temperature=0.6" in out and "seed=new each time" in out and "top_k=5" in out
    params = talk.engine.requests[0].params
    assert (params.temperature, params.top_k, params.seed) == (0.2, 5, 3)


def test_a_mistake_is_one_line_and_the_talk_goes_on(converse):
    lines = ["/hepl", "/set heat=1", "/set temperature=x", "/save", "/save /no/such/folder/x.json", "q"]
    _, out, _ = converse(lines, "a")
    said = out.splitlines()
    assert said[0] == "smallpress: there is no command /hepl; did you mean help?; /help shows them all"
    assert [line.startswith("smallpress: ") for line in said] == [True] * 5 + [False] * 2
    assert said[5:] == ["a", ""]


def test_system_and_clear_change_what_the_model_is_told(converse):
    talk, out, _ = converse(["one", "/system Be brief.", "/clear", "two", "/system", "three"], "a", "b", "c")
    prompts = [talk.tokenizer.decode(request.prompt_ids) for request in talk.engine.requests]
    assert "Be brief." in prompts[1] and "one" not in prompts[1]
    assert "Be brief." not in prompts[2] and "two" in prompts[2]
    assert "the conversation is forgotten" in out


def test_in_another_form_there_is_no_system_text(converse):
    _, out, _ = converse(["/system x"], form="r1_zero")
    assert "smallpress: the prompt form r1_zero has no system text" in out


def test_a_conversation_is_saved_as_json_or_markdown_and_never_over_a_file(converse, tmp_path):
    as_json, as_markdown = tmp_path / "a b.json", tmp_path / "talk.md"
    lines = ["/system s", "q", f"/save {as_json}", f"/save {as_markdown}", f"/save {as_json}"]
    _, out, _ = converse(lines, "<think>x\ny</think>4")
    saved = json.loads(as_json.read_text())
    assert saved["model"] == "tiny" and saved["temperature"] == 0.6
    assert saved["messages"][-1] == {"role": "assistant", "content": "4", "reasoning_content": "x\ny"}
    assert as_markdown.read_text().endswith("## user\n\nq\n\n## assistant\n\n> x\n> y\n\n4\n")
    assert out.count("written to") == 2 and "already exists; choose another name" in out


@pytest.mark.parametrize("word", ["/quit", "/exit"])
def test_quit_leaves(converse, word):
    _, out, prompts = converse([word, "never asked"])
    assert out == "\n" and len(prompts) == 1


def test_ctrl_c_at_an_empty_prompt_leaves_only_the_second_time(converse):
    _, out, prompts = converse([KeyboardInterrupt(), "q", KeyboardInterrupt(), KeyboardInterrupt()], "a")
    assert out.count("(Ctrl-C again, or Ctrl-D, leaves)") == 2 and len(prompts) == 4


def test_ctrl_c_stops_an_answer_between_two_tokens_and_not_the_program(make_talk, typed, capsys):
    talk = make_talk("abcdef", "xyz")

    def press(step):
        if step == 2 and len(talk.engine.requests) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    talk.engine.before_step = press
    before = signal.getsignal(signal.SIGINT)
    Repl(talk, "tiny", typed(["q", "r"])).run()
    assert capsys.readouterr().out == "abc\nxyz\n\n"
    assert [message["content"] for message in talk.messages] == ["q", "abc", "r", "xyz"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_interrupts_what_does_not_stop():
    with interruptions() as stopped:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_question_the_engine_refuses_leaves_the_conversation_as_it_was(make_talk, typed, capsys):
    talk = make_talk("a")

    def refuse(request):
        raise UserError("the prompt has 9000 tokens", "shorten it")

    talk.engine.submit = refuse
    Repl(talk, "tiny", typed(["q"])).run()
    assert "smallpress: the prompt has 9000 tokens; shorten it" in capsys.readouterr().out
    assert talk.messages == []
