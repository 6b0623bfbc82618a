import re

import pytest

from smallpress.evaluate.baseline import answers_needed, baseline, load_result
from smallpress.evaluate.compare import compare
from smallpress.evaluate.problems import from_file, held_out
from smallpress.evaluate.result import save_json
from smallpress.evaluate.tables import baseline_grid, comparison_grid, result_grid
from smallpress.run.errors import UserError
from smallpress.tasks.mixture import parse_mixture
from smallpress.tasks.worked import worked_example


def untrained(prompt, seed):
    """Right without tags in a chat; in the R1-Zero form it needs the example, and is then right in half."""
    numbers = [int(n) for n in re.findall(r"\d+", prompt.rsplit("What is", 1)[1])]
    if "im_start" in prompt:
        return f"The answer is {sum(numbers)}."
    if prompt.count("User: What is") == 2 and sum(numbers) % 2:
        return f" <think> hm </think> <answer> {sum(numbers)} </answer>"
    return " I do not know."


@pytest.fixture(scope="module")
def problems():
    return held_out([("chained_sum", 3)], n=8)


@pytest.fixture
def measured(engine_saying, tokenizer, problems):
    engine = engine_saying(untrained)
    heard = []
    found = baseline(
        engine,
        tokenizer,
        problems.examples,
        problems.tasks,
        worked_example,
        samples=2,
        on_answer=lambda: heard.append(1),
    )
    assert len(heard) == engine.n_submitted == answers_needed(8, samples=2) == 72
    return found


def test_the_baseline_is_the_best_greedy_way_and_says_which(measured):
    assert len(measured.results) == 12  # three forms, greedy and sampled, strict and lenient
    assert measured.result.overall.accuracy.value == 1.0
    assert (measured.result.form, measured.result.reading) == ("chat", "lenient")
    assert measured.result.sampling.greedy


def test_a_baseline_file_stands_for_its_best_result(measured, tmp_path):
    save_json(tmp_path / "b.json", measured)
    loaded = load_result(tmp_path / "b.json")
    assert loaded == measured.result
    assert compare(loaded, measured.result).difference.value == 0.0
    text = (tmp_path / "b.json").read_text().replace(f'"best": {measured.best}', '"best": 99')
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(UserError, match="best is 99"):
        load_result(tmp_path / "b.json")


def test_tables_hold_the_numbers(measured):
    rows = baseline_grid(measured.results, measured.best).rows[1:]
    assert rows[1][:5] == ["chat", "greedy", "lenient", "100.0 %", "67.6 to 100.0"]  # 8 of 8: 8 / (8 + 1.96^2) = 0.676
    assert [row[-1] for row in rows] == ["", "baseline", *[""] * 10]
    sampled = result_grid(measured.results[2])
    assert sampled.rows[0][2:6] == ["pass@1", "95 % interval", "pass@2", "cons@2"]
    assert [row[0] for row in sampled.rows[1:]] == ["all"]  # one family, one level, one count of steps: nothing to add
    gained = comparison_grid(compare(measured.results[0], measured.result)).rows[1:]
    assert gained[0][:2] == ["all", "8"] and gained[0][6] == "+100.0"


def test_the_worked_example_is_right_and_not_held_out(problems):
    question, completion = worked_example()
    numbers = [int(n) for n in re.findall(r"\d+", question)]
    assert f"<answer> {sum(numbers)} </answer>" in completion
    assert question not in [example.prompt for example in held_out([("chained_sum", 3)], n=100).examples]


@pytest.mark.parametrize("words", ["", "chained_sum:99", "chained_sum:x", "chained_sum:3-", "chained_sum:-3", "sum:3"])
def test_a_mixture_that_names_nothing_is_the_users_error(words):
    with pytest.raises(UserError):
        parse_mixture(words)


def test_a_family_without_levels_means_all_of_them_and_nothing_twice():
    pairs = parse_mixture("chained_sum, chained_sum:3-4")
    assert len(pairs) == len(set(pairs)) > 5


def test_problems_are_shared_out_evenly():
    examples = held_out([("chained_sum", 4), ("product", 2)], n=10).examples
    assert [example.family for example in examples] == ["chained_sum"] * 5 + ["product"] * 5


def test_a_file_gives_all_its_questions_once_or_a_seeded_choice(tmp_path):
    lines = [f'{{"question": "What is {i} + 1?", "answer": "{i + 1}"}}' for i in range(40)]
    (tmp_path / "sums.jsonl").write_text("\n".join([*lines, lines[0]]))
    whole = from_file(tmp_path / "sums.jsonl")
    assert len(whole.examples) == 40
    some = from_file(tmp_path / "sums.jsonl", n=10, seed=1).examples
    assert some == from_file(tmp_path / "sums.jsonl", n=10, seed=1).examples
    assert [one for one in whole.examples if one in some] == some
    kept = from_file(tmp_path / "sums.jsonl", held_out_only=True).examples
    assert 0 < len(kept) < 40
    assert whole.tasks["file"].check(whole.examples[0], "<answer>1</answer>").correct
