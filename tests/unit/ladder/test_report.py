"""A ladder's table, from answers one can count."""

import json

import pytest

from smallpress.evaluate.result import Answer, Problem, Result, Sampling
from smallpress.ladder.measure import Measured, way_of
from smallpress.ladder.report import Price, one_question, rows_of, stage_grid, write_ladder_report
from smallpress.ladder.settings import R1Settings
from smallpress.ladder.state import Standing

GOOD, BAD = "<think> It is so. </think> <answer> 4 </answer>", "so it is " * 20
PRICE = Price("a machine", watts=30.0, dollars=0.6)


def result(form, right, reading="strict", text=GOOD):
    """Four problems, the first `right` of which are answered rightly."""
    problems = []
    for i in range(4):
        verdict = {"correct": i < right, "well_formed": text == GOOD, "reason": ""}
        answer = Answer(text=text, answer="4", n_tokens=10 + i, truncated=False, **verdict)
        problems.append(
            Problem(key=str(i), family="sums", level=i % 2, steps=1, prompt=f"{i}?", reference="4", answers=(answer,))
        )
    return Result.of("m", form, reading, Sampling(), problems, seconds=6.0)


def way(form, right, lenient=None, text=GOOD):
    return way_of(result(form, right, text=text), result(form, right if lenient is None else lenient, "lenient", text))


@pytest.fixture
def ladder(tmp_path) -> Standing:
    """The base knows one of four when read leniently, R1-Zero two in its own form, the cold start three."""
    standing = Standing(tmp_path, R1Settings(model="base", tasks=("chained_sum:3",), minutes=60.0))
    said = {
        "base": [way("chat", 0, 1, BAD), way("r1_zero", 0, 0, BAD)],
        "r1_zero": [way("r1_zero_example", 2), way("chat", 0, 0, BAD)],
        "cold_start": [way("chat", 3)],
    }
    for key, ways in said.items():
        path = standing.measured_path(key)
        path.parent.mkdir(exist_ok=True)
        path.write_text(Measured(model=key, ways=tuple(ways)).model_dump_json(by_alias=True))
    for name, minutes in (("0-r1-zero", 12.0), ("1-cold-start", 3.0)):
        (tmp_path / name / "model").mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps({"step": 0, "minutes": minutes}) + "\n")
    rows = [{"question": 0, "draw": 0, "text": "", "finished": True, "seconds": 60.0}]
    (tmp_path / "1-cold-start/answers.jsonl").write_text(json.dumps(rows[0]) + "\n")
    return standing


def test_each_stage_has_a_line_with_its_gains_on_the_same_problems(ladder):
    head, *lines = stage_grid(rows_of(ladder), PRICE)
    told = [dict(zip(head, line, strict=True)) for line in lines]
    assert [(one["stage"], one["asked in"], one["accuracy"]) for one in told] == [
        ("untrained", "chat, lenient", "25.0 %"),
        ("0-r1-zero", "r1_zero_example, strict", "50.0 %"),
        ("0-r1-zero", "chat, strict", "0.0 %"),
        ("1-cold-start", "chat, strict", "75.0 %"),
    ]
    assert [one["over untrained"].partition(" ")[0] for one in told] == ["", "+25.0", "-25.0", "+50.0"]
    assert [one["over R1-Zero"].partition(" ")[0] for one in told] == ["", "", "", "+25.0"]
    assert [one["well-formed"] for one in told] == ["0.0 %", "100.0 %", "0.0 %", "100.0 %"]
    assert [one["readable"] for one in told] == ["0.0 %", "100.0 %", "0.0 %", "100.0 %"]  # BAD repeats itself
    assert {one["tokens"] for one in told} == {"11.5"}


def test_a_stage_costs_its_asking_its_training_and_its_measuring(ladder):
    head, *lines = stage_grid(rows_of(ladder), PRICE)
    told = [dict(zip(head, line, strict=True)) for line in lines]
    # 12 minutes of training and twice 6 seconds of measuring; 1 of asking, 3 of training and 6 seconds
    assert [one["minutes"] for one in told] == ["0.2", "12.2", "", "4.1"]
    assert told[1]["kWh"] == "0.0061" and told[1]["dollars"] == "0.12"  # 30 W and 60 cents an hour


def test_what_is_left_is_neither_spent_nor_needed_to_measure(ladder):
    reasoning = ladder.stages[2]
    # 12 + 4 minutes, and five times 6 seconds of measuring; three times as long is yet to be measured
    assert ladder.spent() == pytest.approx(960 + 30)
    assert ladder.seconds_left(reasoning, ladder.spent()) == pytest.approx(3600 - 960 - 30 - 18)


def test_the_question_shown_is_one_that_was_won_late(ladder):
    said = one_question([row for row in rows_of(ladder) if row.counts])
    assert said[0].what == "2?" and [one.who for one in said[1:]] == [
        "untrained, wrong",
        "0-r1-zero, wrong",
        "1-cold-start",
    ]


def test_the_report_is_text_and_a_page_without_a_script(ladder):
    page = write_ladder_report(ladder, PRICE)
    assert "| 1-cold-start | chat, strict | 75.0 % |" in (ladder.out / "report.md").read_text()
    shown = page.read_text()
    assert "1-cold-start" in shown and "<script" not in shown and "&lt;think&gt;" in shown
    assert not (ladder.out / "result.json").exists()  # it is not at its end


def test_the_state_told_to_others_is_what_the_folders_hold(ladder):
    assert [(one["name"], one["state"]) for one in ladder.as_json()["stages"]] == [
        ("0-r1-zero", "measured"), ("1-cold-start", "measured"), ("2-reasoning-rl", "waiting"),
        ("3-rejection-sampling", "waiting"), ("4-all-scenarios-rl", "waiting"),
    ]  # fmt: skip
