"""What a teacher has answered is never asked again; what is learned is right, readable and not what is measured."""

import json

import pytest

from smallpress.tasks.example import worked_completion
from smallpress.train.distill_settings import DistillSettings
from smallpress.train.gather import ANSWERS, DATA, Answer, gather, questions, sift, stored

GIVEN = {"model": "m", "teacher": "t", "tasks": ("chained_sum:3",), "n_questions": 4, "answers_each": 2}


def settings(**more):
    return DistillSettings(**(GIVEN | more))


class Right:
    """Answers by the program-written working, as often as asked, then stops like a killed run."""

    def __init__(self, limit=100):
        self.n, self.limit = 0, limit

    def answers(self, asked):
        for place, (question, draw) in enumerate(asked):
            self.n += 1
            if self.n > self.limit:
                raise KeyboardInterrupt
            yield place, Answer(worked_completion(question.example) + " " * draw, True, 3, 4)


def nothing():
    pass


def test_questions_are_of_the_training_side_none_twice_and_files_come_after(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"prompt": "Name a colour.", "completion": "Red."}))
    found = questions(settings(n_questions=10, tasks=("chained_sum:3", "product:1"), prompts=(str(file),)))
    assert len(found) == 11 and len({one.example.key for one in found[:10]}) == 10
    assert found[10].example is None and found[10].messages == ({"role": "user", "content": "Name a colour."},)
    assert [q.example.family for q in found[:10]] == ["chained_sum"] * 5 + ["product"] * 5


def test_a_stopped_run_asks_only_what_it_lacks(tmp_path):
    asked = questions(settings())
    with pytest.raises(KeyboardInterrupt):
        gather(tmp_path, asked, 2, Right(limit=5), nothing)
    with open(tmp_path / ANSWERS, "a") as file:
        file.write('{"question": 3, "dr')  # torn by the kill
    rest = Right()
    gather(tmp_path, asked, 2, rest, nothing)
    assert rest.n == 3
    assert sorted((row["question"], row["draw"]) for row in stored(tmp_path / ANSWERS)) == [
        (i, n) for i in range(4) for n in range(2)
    ]


def answered(folder, *texts, finished=True):
    rows = [{"question": 0, "draw": i, "text": text, "finished": finished} for i, text in enumerate(texts)]
    (folder / ANSWERS).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_answers_are_kept_or_dropped_for_a_reason(tmp_path):
    chosen = settings(keep_each=2)
    asked = questions(chosen)
    right = asked[0].example.reference
    answered(
        tmp_path, f"It is <answer>{right}</answer>", f"It is <answer>{right}</answer>", "<answer>999</answer>", "",
        f"<think> on <answer>{right}</answer>", f"\u4e00\u4e8c\u4e09 <answer>{right}</answer>",
        f"<answer>{right}</answer>",
        f"Again <answer>{right}</answer>", f"{'so it is ' * 30}<answer>{right}</answer>",
    )  # fmt: skip
    assert sift(tmp_path, chosen, asked) == {
        "kept": 2, "the same as another": 1, "wrong": 1, "empty": 1, "a tag is not closed": 1, "mixes scripts": 1,
        "more than 2 of a question": 1, "repeats itself": 1,
    }  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / DATA).read_text().splitlines()]
    assert [row["messages"][1]["content"] for row in rows] == [
        f"It is <answer>{right}</answer>",
        f"<answer>{right}</answer>",
    ]
    answered(tmp_path, f"<answer>{right}</answer>", finished=False)
    assert sift(tmp_path, chosen, asked) == {"cut off": 1} and (tmp_path / DATA).read_text() == ""


def test_what_is_measured_is_not_learned(tmp_path):
    words = "a farmer has three fields and in each of them grow nine trees"
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": words, "answer": "27"}))
    chosen = settings(filters={"measured": (str(tmp_path / "test.jsonl"),), "correct": False})
    answered(tmp_path, f"So: {words.upper()}!", "a farmer has three fields and in each of them grow ten")
    counts = sift(tmp_path, chosen, questions(chosen))
    assert counts == {"shares 10 words in a row with what is measured": 2}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"tasks": ()}, "there is nothing to ask"),
        ({"teacher": "http://x/v1", "method": "logits"}, "needs the teacher's probabilities"),
        ({"method": "on_policy", "lora": {}}, "trains all weights"),
        ({"tasks": ("chained_som",)}, "did you mean chained_sum"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(more, says):
    with pytest.raises(ValueError, match=says):
        settings(**more)


def test_an_asking_ends_at_its_minutes_those_of_earlier_sittings_included(tmp_path):
    asked, row = questions(settings()), {"question": 3, "draw": 0, "text": "", "finished": True, "seconds": 61.0}
    (tmp_path / ANSWERS).write_text(json.dumps(row) + "\n")
    late, early = Right(), Right()
    gather(tmp_path, asked, 2, late, nothing, minutes=1)
    gather(tmp_path, asked, 2, early, nothing, minutes=2)
    assert (late.n, early.n) == (0, 7)


@pytest.mark.parametrize(("share", "n"), [(0.0, 0), (0.25, 1), (0.5, 3), (0.9, 5)])
def test_other_conversations_are_their_share_of_the_whole_as_far_as_there_are_so_many(share, n, tmp_path):
    """Three answers are kept, and there are five others."""
    others = [[{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "!"}] for i in range(5)]
    file = tmp_path / "others.jsonl"
    file.write_text("".join(json.dumps({"messages": one}) + "\n" for one in others))
    chosen = settings(keep_each=3, others=(str(file),), others_share=share)
    asked = questions(chosen)
    answered(tmp_path, *(f"{'so ' * i}<answer>{asked[0].example.reference}</answer>" for i in range(3)))
    counts = sift(tmp_path, chosen, asked)
    assert (counts["kept"], counts["other conversations, mixed in"]) == (3, n)
    rows = [json.loads(line)["messages"] for line in (tmp_path / DATA).read_text().splitlines()]
    assert len(rows) == 3 + n and all(row in others for row in rows[3:])


def test_what_r1_dropped_is_dropped(tmp_path):
    rules = {"well_formed": True, "paragraph_words": 6, "code_blocks": False}
    chosen = settings(keep_each=9, reading="strict", filters=rules)
    asked = questions(chosen)
    end = f"</think> <answer>{asked[0].example.reference}</answer>"
    answered(
        tmp_path, f"<think> so {end}", end, f"<think> one two three four five six seven {end}",
        f"<think> one two three\n\nfour {end}", f"<think> ``` {end}", f"It is {end.partition('>')[2]}",
    )  # fmt: skip
    assert sift(tmp_path, chosen, asked) == {
        "kept": 2, "a long paragraph": 1, "a code block": 1, "not in the form asked for": 2,
    }  # fmt: skip
