"""Each part of the reward, by hand."""

import pytest

from smallpress.rl.reward import PARTS, Judged
from smallpress.tasks.example import Example
from smallpress.tasks.task import TASKS

ADDITION = TASKS["addition"]
RIGHT = "<think> 2 and 2 make 4 </think> <answer> 4 </answer>"


def judged(text, prompt="What is 2 + 2?", n_tokens=1, max_tokens=100):
    example = Example(prompt, "4", "addition", 2, key="2+2", meta={})
    return Judged(ADDITION, example, text, n_tokens, max_tokens, ADDITION.check(example, text))


@pytest.mark.parametrize(
    ("text", "accuracy", "loose_accuracy", "format_", "answer_tag"),
    [
        (RIGHT, 1, 1, 1, 1),
        (RIGHT.replace(" 4 ", " 5 "), 0, 0, 1, 1),
        ("<answer> 4 </answer>", 1, 1, 0, 1),
        ("2 + 2 = 4", 0, 1, 0, 0),
        ("<think> 2 and 2 make 4", 0, 1, 0, 0),
        ("<answer> 4 </answer> <answer> 5 </answer>", 0, 0, 0, 1),
        ("", 0, 0, 0, 0),
    ],
)
def test_right_and_well_formed_are_rewarded_apart(text, accuracy, loose_accuracy, format_, answer_tag):
    wanted = {"accuracy": accuracy, "loose_accuracy": loose_accuracy, "format": format_, "answer_tag": answer_tag}
    assert {name: PARTS[name](judged(text)) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("text", "prompt", "share"),
    [
        ("two and two make four", "What is 2 + 2?", 1.0),
        ("two 加 two is 四", "What is 2 + 2?", 3 / 5),
        ("二加二等于四", "二加二等于几", 1.0),
        ("<think>二加二</think><answer>四</answer>", "二加二等于几", 1.0),  # tags are no words
        ("答案是four", "二加二等于几", 3 / 4),  # a word of another script counts once, also without a space before it
        ("four是答案", "二加二等于几", 3 / 4),
        ("2 + 2 = 4", "What is 2 + 2?", 1.0),  # no words, no change of language
        ("", "二加二等于几", 1.0),
    ],
)
def test_language_is_the_share_of_words_in_the_questions_script(text, prompt, share):
    assert PARTS["language"](judged(text, prompt)) == pytest.approx(share)


@pytest.mark.parametrize(("n_tokens", "punishment"), [(1, 0), (80, 0), (85, -0.25), (90, -0.5), (100, -1)])
def test_overlong_falls_over_the_last_fifth(n_tokens, punishment):
    assert PARTS["overlong"](judged(RIGHT, n_tokens=n_tokens)) == pytest.approx(punishment)


def test_an_answer_of_the_only_allowed_token_is_as_long_as_can_be():
    assert PARTS["overlong"](judged(RIGHT, n_tokens=1, max_tokens=1)) == pytest.approx(-1)
