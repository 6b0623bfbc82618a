import re

import pytest

from smallpress.evaluate.compare import compare
from smallpress.evaluate.evaluate import ask, evaluate, judge
from smallpress.evaluate.result import Result, Sampling, read_json, save_json, validated
from smallpress.run.errors import UserError
from smallpress.run.metrics import MetricsLog
from smallpress.run.report import write_report
from smallpress.tasks.check import Checked
from smallpress.tasks.example import Example

SUMS = [(3, 4), (5, 6), (2, 7), (9, 9)]


class Sum(Checked):
    name, levels = "sum", (1, 2)


TASKS = {"sum": Sum()}


def questions(pairs=SUMS):
    return [
        Example(f"What is {a} + {b}?", str(a + b), "sum", 1 if i < 2 else 2, f"{a}+{b}", {"steps": 1 if i < 3 else 2})
        for i, (a, b) in enumerate(pairs)
    ]


def numbers_in(prompt):
    a, b = map(int, re.findall(r"What is (\d+) \+ (\d+)\?", prompt)[-1])
    return a, b


def tagged(answer):
    return f" <think> hm </think> <answer> {answer} </answer>"


def right(prompt, seed):
    return tagged(sum(numbers_in(prompt)))


def right_below_ten(prompt, seed):
    return tagged(min(sum(numbers_in(prompt)), 9))  # 3 + 4 and 2 + 7, not 5 + 6 and 9 + 9


def test_greedy_accuracy_is_the_share_right_overall_and_by_every_grouping(engine_saying, tokenizer):
    result = evaluate(engine_saying(right_below_ten), tokenizer, questions(), TASKS, "r1_zero", model="fake")
    assert result.overall.accuracy.value == 0.5
    assert result.overall.accuracy.low < 0.5 < result.overall.accuracy.high
    assert {name: one.accuracy.value for name, one in result.by_family.items()} == {"sum": 0.5}
    assert {name: one.accuracy.value for name, one in result.by_level.items()} == {"sum:1": 0.5, "sum:2": 0.5}
    steps = {name: (one.accuracy.value, one.accuracy.n) for name, one in result.by_steps.items()}
    assert steps == {"one step": (pytest.approx(2 / 3), 3), "more steps": (0.0, 1)}
    assert result.overall.pass_at == {1: 0.5}
    assert result.overall.consensus is None
    assert result.overall.well_formed_share == 1.0
    assert result.label == "fake, r1_zero, greedy, strict reading"


def test_samples_give_pass_at_1_pass_at_k_and_the_majority(engine_saying, tokenizer):
    one_question = questions()[:1]
    said = iter(["7", "7.0", "8", "9"])
    engine = engine_saying(lambda prompt, seed: tagged(next(said)))
    sampling = Sampling(samples=4, temperature=0.6)
    overall = evaluate(engine, tokenizer, one_question, TASKS, "r1_zero", sampling).overall
    assert overall.accuracy.value == 0.5
    assert overall.pass_at == {1: 0.5, 2: pytest.approx(5 / 6), 4: 1.0}
    assert overall.consensus.value == 1.0  # 7 and 7.0 are one answer, with two votes


def test_every_question_is_in_the_engine_at_once_with_its_own_seed(engine_saying, tokenizer):
    seeds = []
    engine = engine_saying(lambda prompt, seed: seeds.append(seed) or tagged(0))
    heard = []
    sampling = Sampling(samples=3, temperature=1.0)
    evaluate(engine, tokenizer, questions(), TASKS, "r1_zero", sampling, on_answer=lambda: heard.append(1))
    assert engine.largest_queue == len(heard) == len(set(seeds)) == 12


def test_a_questions_draw_does_not_depend_on_the_others_asked(engine_saying, tokenizer):
    def of_seed(prompt, seed):
        return tagged(seed % 1000)

    sampling = Sampling(samples=2, temperature=1.0, seed=5)
    whole = evaluate(engine_saying(of_seed), tokenizer, questions(), TASKS, "r1_zero", sampling)
    part = evaluate(engine_saying(of_seed), tokenizer, questions()[2:3], TASKS, "r1_zero", sampling)
    assert part.problems == whole.problems[2:3]


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("<answer> 7 </answer> and 8", "<answer> 7 </answer>"),
        ("It is 7.\nUser: What is 1 + 1?\nAssistant: 2", "It is 7."),
        ("It is 7.", "It is 7."),
    ],
)
def test_a_plain_text_form_ends_at_its_answer_or_at_an_invented_question(engine_saying, tokenizer, said, text):
    answered = ask(engine_saying(lambda *_: said), tokenizer, questions()[:1], "r1_zero", Sampling())
    assert answered.said[0][0].text == text
    assert answered.said[0][0].n_tokens <= len(said) + 1


def test_a_chat_ends_only_where_the_model_ends_it(engine_saying, tokenizer):
    said = "<answer> 7 </answer> Anything else?"
    answered = ask(engine_saying(lambda *_: said), tokenizer, questions()[:1], "chat", Sampling())
    assert answered.said[0][0].text == said


def test_one_set_of_completions_is_read_strictly_and_leniently(engine_saying, tokenizer):
    engine = engine_saying(lambda prompt, _: f"It is {sum(numbers_in(prompt))}.")
    answered = ask(engine, tokenizer, questions(), "chat", Sampling())
    assert judge(answered, TASKS, "strict", "m").overall.accuracy.value == 0.0
    assert judge(answered, TASKS, "lenient", "m").overall.accuracy.value == 1.0
    assert engine.n_submitted == 4


def test_completions_cut_at_the_limit_are_counted_and_lengths_averaged(engine_saying, tokenizer):
    engine = engine_saying(lambda prompt, _: "x" * (2 if "What is 3" in prompt else 50))
    overall = evaluate(engine, tokenizer, questions()[:2], TASKS, "chat", Sampling(max_tokens=9)).overall
    assert overall.truncated_share == 0.5
    assert overall.mean_tokens == (3 + 9) / 2  # the end token counts
    assert overall.well_formed_share == 0.0


def test_a_prompt_that_opens_the_thinking_is_judged_as_opened(engine_saying, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", "{{ messages[0].content }}<think>\n")
    engine = engine_saying(lambda *_: "hm </think> <answer> 7 </answer>")
    overall = evaluate(engine, tokenizer, questions()[:1], TASKS, "chat").overall
    assert overall.well_formed_share == overall.accuracy.value == 1.0


def test_the_worked_example_stands_in_the_prompt(engine_saying, tokenizer):
    prompts = []
    engine = engine_saying(lambda prompt, _: prompts.append(prompt) or tagged(0))
    worked = ("What is 1 + 1?", tagged(2))
    evaluate(engine, tokenizer, questions()[:1], TASKS, "r1_zero_example", shown=lambda _: worked)
    assert prompts[0].index("What is 1 + 1?") < prompts[0].index("<answer> 2 </answer>") < prompts[0].index("3 + 4")


def test_ctrl_c_leaves_nothing_in_the_engine(engine_saying, tokenizer):
    engine = engine_saying(right)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(engine, tokenizer, questions(), TASKS, on_answer=interrupt)
    assert engine.waiting == []


def test_a_checker_that_crashes_stops_the_evaluation(engine_saying, tokenizer):
    class Broken(Sum):
        def check(self, *_):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        evaluate(engine_saying(right), tokenizer, questions(), {"sum": Broken()})


def test_no_question_is_the_users_error(engine_saying, tokenizer):
    with pytest.raises(UserError, match="no question"):
        evaluate(engine_saying(right), tokenizer, [], TASKS)


def test_several_greedy_samples_make_no_sense(tokenizer):
    with pytest.raises(UserError, match="would all be alike"):
        Sampling(samples=2)


def test_a_result_survives_its_file_and_is_frozen(engine_saying, tokenizer, tmp_path):
    sampling = Sampling(samples=2, temperature=0.6)
    result = evaluate(engine_saying(right), tokenizer, questions(), TASKS, sampling=sampling)
    result.save(tmp_path / "r.json")
    value = read_json(tmp_path / "r.json")
    assert next(iter(value)) == "schema"
    assert validated(Result, value, "r.json") == result
    with pytest.raises(ValueError, match="frozen"):
        result.model = "other"


def test_a_file_that_is_no_result_is_named_with_its_field(tmp_path):
    (tmp_path / "r.json").write_text('{"schema": "smallpress.evaluation/1"}')
    with pytest.raises(UserError, match=r"r\.json is not an evaluation: model"):
        validated(Result, read_json(tmp_path / "r.json"), tmp_path / "r.json")
    for content in ("[]", "nonsense", "[" * 5000):
        (tmp_path / "r.json").write_text(content)
        with pytest.raises(UserError, match=r"r\.json is not"):
            read_json(tmp_path / "r.json")


def test_metrics_are_named_for_the_report(engine_saying, tokenizer):
    result = evaluate(engine_saying(right), tokenizer, questions(), TASKS, "r1_zero")
    metrics = result.metrics()
    assert metrics["eval/accuracy"] == metrics["eval/sum:1/accuracy"] == metrics["eval/high"] == 1.0
    assert metrics["eval/low"] == result.overall.accuracy.low < 1


def test_comparing_pairs_each_question_with_itself_whatever_the_order(engine_saying, tokenizer):
    before = evaluate(engine_saying(right_below_ten), tokenizer, questions(), TASKS, model="old")
    after = evaluate(engine_saying(right), tokenizer, questions()[::-1], TASKS, model="new")
    comparison = compare(before, after)
    assert (comparison.before.value, comparison.after.value, comparison.difference.value) == (0.5, 1.0, 0.5)
    assert comparison.difference.low >= 0  # no question was lost
    assert comparison.by_steps["more steps"].difference.value == 1.0
    assert comparison.before_label.startswith("old")


def test_the_report_draws_its_table_of_gains_from_a_comparison(engine_saying, tokenizer, tmp_path):
    before = evaluate(engine_saying(right_below_ten), tokenizer, questions(), TASKS, model="old")
    after = evaluate(engine_saying(right), tokenizer, questions(), TASKS, model="new")
    save_json(tmp_path / "result.json", compare(before, after))
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.write(0, before.metrics())
        log.write(9, after.metrics())
    html = write_report(tmp_path).read_text(encoding="utf-8")
    for words in ("+50.0", "before: old, chat, greedy, strict reading", "Held-out accuracy by family", "sum:1 100 %"):
        assert words in html


def test_comparing_different_questions_is_refused(engine_saying, tokenizer):
    whole = evaluate(engine_saying(right), tokenizer, questions(), TASKS)
    part = evaluate(engine_saying(right), tokenizer, questions()[:3], TASKS)
    other = evaluate(engine_saying(right), tokenizer, questions([(3, 4), (5, 6), (2, 7), (9, 8)]), TASKS)
    for one in (part, other):
        with pytest.raises(UserError, match="different questions"):
            compare(whole, one)
