import pytest

from smallpress.tasks.answers import format_ok, has_answer_tag, has_thought, tag_share


@pytest.mark.parametrize(
    "completion",
    [
        "<think> 3 + 4 = 7 </think> <answer> 7 </answer>",
        "<think>a</think><answer>b</answer>",
        "\n <think>\na\n</think>\n\n<answer>\nb\n</answer>\n",
    ],
)
def test_thinking_then_answer_and_nothing_else_is_the_form(completion):
    assert format_ok(completion)
    assert tag_share(completion) == 1.0
    assert has_thought(completion) and has_answer_tag(completion)


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "7",
        "<answer> 7 </answer>",
        "<think> a </think>",
        "<think> a </think> <answer> 7",
        "a <think> a </think> <answer> 7 </answer>",
        "<think> a </think> so <answer> 7 </answer>",
        "<think> a </think> <answer> 7 </answer> done",
        "<think> </think> <answer> 7 </answer>",
        "<think> a </think> <answer> </answer>",
        "<answer> 7 </answer> <think> a </think>",
        "<think> <answer> 7 </answer> </think>",
        "<think> a <think> b </think> <answer> 7 </answer>",
        "<think> a </think> <answer> 7 </answer> <answer> 8 </answer>",
        "<think> a </think> <answer> <think> 7 </answer>",
        "<THINK> a </THINK> <answer> 7 </answer>",
        "<think> a </think> <answer> 7 </answer>\nUser: and now?",
        "</think> <think> a <answer> 7 </answer>",
    ],
)
def test_anything_missing_doubled_or_besides_breaks_the_form(completion):
    assert not format_ok(completion)


def test_where_the_prompt_opened_the_thinking_the_completion_does_not():
    assert format_ok("3 + 4 = 7 </think> <answer> 7 </answer>", opened=True)
    assert not format_ok("<think> 3 + 4 = 7 </think> <answer> 7 </answer>", opened=True)
    assert not format_ok(" </think> <answer> 7 </answer>", opened=True)


@pytest.mark.parametrize(
    ("completion", "share"),
    [
        ("7", 0.0),
        ("<think> 7", 0.25),
        ("<think> 7 </think>", 0.5),
        ("<think> a </think> <answer> 7", 0.75),
        ("<answer> 7 </answer>", 0.5),
        ("</answer> <answer> </think> <think>", 0.25),
        ("<think> <think> a </think> <answer> 7 </answer>", 0.75),
    ],
)
def test_the_tags_once_each_and_in_order_are_counted(completion, share):
    assert tag_share(completion) == share


def test_a_part_counts_only_when_it_is_closed_and_holds_something():
    assert not has_answer_tag("<answer> 7") and not has_answer_tag("<answer> </answer>")
    assert not has_thought("<think> 7") and not has_thought("<think></think>")
    assert has_thought("a </think>", opened=True)
