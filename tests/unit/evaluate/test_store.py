import pytest

from smallpress.evaluate.evaluate import ask, judge
from smallpress.evaluate.result import Sampling
from smallpress.evaluate.store import AnswerStore, Said, answer_key
from smallpress.run.errors import UserError
from smallpress.tasks.check import Checked, CheckerError
from smallpress.tasks.example import Example
from smallpress.tokenizer.thinking import CLOSING

QUESTIONS = [Example(f"What is {i} + 1?", str(i + 1), "sum", 1, str(i), {}) for i in range(4)]


WRONG_TYPES = b'{"key": "k", "text": 1, "n_tokens": 1, "n_thinking": 0, "truncated": 0}\n'


def right(prompt, seed):
    return f"<answer> {int(prompt.split('What is ')[1].split()[0]) + 1} </answer>"


def test_what_was_answered_before_a_stop_is_not_asked_again(engine_saying, tokenizer, tmp_path):
    heard = []

    def interrupt():
        heard.append(1)
        if len(heard) == 3:
            raise KeyboardInterrupt

    with AnswerStore(tmp_path / "a", "m") as store, pytest.raises(KeyboardInterrupt):
        ask(engine_saying(right), tokenizer, QUESTIONS, "chat", Sampling(), on_answer=interrupt, store=store)
    with open(tmp_path / "a", "ab") as file:
        file.write(b'{"key": "half')  # killed while writing
    engine = engine_saying(right)
    with AnswerStore(tmp_path / "a", "m") as store:
        assert len(store) == 3
        answered = ask(engine, tokenizer, QUESTIONS, "chat", Sampling(), store=store)
    assert engine.n_submitted == 1
    assert judge(answered, {"sum": Checked()}, "strict", "m").overall.accuracy.value == 1.0
    with AnswerStore(tmp_path / "a", "m") as store:
        assert len(store) == 4


def test_more_samples_keep_the_old_ones_and_another_temperature_does_not():
    one, two = Sampling(samples=1, temperature=0.6), Sampling(samples=2, temperature=0.6)
    assert answer_key(QUESTIONS[0], 0, "chat", one) == answer_key(QUESTIONS[0], 0, "chat", two)
    keys = {
        answer_key(QUESTIONS[0], i, form, how)
        for i in (0, 1)
        for form in ("chat", "r1_zero")
        for how in (one, Sampling())
    }
    assert len(keys) == 8


def test_another_models_answers_and_damaged_ones_are_refused(tmp_path):
    with AnswerStore(tmp_path / "a", "m") as store:
        store.put("k", Said("text \u2028 \ud800", 3, 1, False))
    with pytest.raises(UserError, match="holds answers of m, not of n"):
        AnswerStore(tmp_path / "a", "n")
    with AnswerStore(tmp_path / "a", "m") as store:
        assert store.get("k") == Said("text \u2028 \ud800", 3, 1, False)
    for line in (
        b"nonsense\n",
        b'{"key": "k"}\n',
        b'{"key": "k", "text": 1, "n_tokens": 1, "n_thinking": 0, "truncated": 0}\n',
    ):
        (tmp_path / "b").write_bytes((tmp_path / "a").read_bytes() + line)
        with pytest.raises(UserError, match="b, line 3, is no answer"):
            AnswerStore(tmp_path / "b", "m")


def test_a_checkers_errors_are_counted_apart_and_stop_the_run_above_one_in_a_hundred(engine_saying, tokenizer):
    class Broken(Checked):
        def __init__(self, n):
            self.n = n

        def fault(self, example, answer):
            self.n -= 1
            if self.n >= 0:
                raise CheckerError("no verdict within 1 s")
            return None

    answered = ask(engine_saying(right), tokenizer, QUESTIONS, "chat", Sampling())
    overall = judge(answered, {"sum": Broken(1)}, "strict", "m").overall
    assert (overall.error_share, overall.accuracy.value) == (0.25, 0.75)
    with pytest.raises(UserError, match="no finding on 2 of 4 answers, the first time: no verdict within 1 s"):
        judge(answered, {"sum": Broken(2)}, "strict", "m")


def test_thinking_is_counted_and_cut_at_its_budget(engine_saying, tokenizer):
    def thinks(prompt, seed):
        return (
            " so <answer> 1 </answer>"
            if "</think>" in prompt
            else "<think>" + "x" * 50 + "</think> <answer> 1 </answer>"
        )

    free = ask(engine_saying(thinks), tokenizer, QUESTIONS[:1], "chat", Sampling()).said[0][0]
    assert free.n_thinking == 1 + 50 + len("</think>")  # a byte a token; thinking begins with the tag's last
    cut = ask(engine_saying(thinks), tokenizer, QUESTIONS[:1], "chat", Sampling(thinking=10)).said[0][0]
    assert cut.text.startswith("<think>" + "x" * 9 + CLOSING)
    assert cut.text.endswith("</think>\n\n so <answer> 1 </answer>") and not cut.truncated
