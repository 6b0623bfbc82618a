import json
from itertools import islice
from pathlib import Path

import pytest

from smallpress.run.errors import UserError
from smallpress.tasks.answers import equal
from smallpress.tasks.example import split_of, worked_completion
from smallpress.tasks.files import FileTask, gsm8k, json_lines, read_problems, svamp

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the data folder ../shared/data is absent")

GSM8K_LINE = {
    "question": "Tom sold 48 clips in April and half as many in May. How many in all?",
    "answer": "Tom sold 48/2 = <<48/2=24>>24 clips in May.\nTom sold 48+24 = <<48+24=72>>72 in all.\n#### 72",
}
SVAMP_RECORD = {
    "ID": "chal-1",
    "Body": "Each pack costs 76 dollars. There is a discount of 25 dollars on each pack",
    "Question": "How much does a pack cost?",
    "Equation": "( 76.0 - 25.0 )",
    "Answer": 51.0,
    "Type": "Subtraction",
}


def write(path: Path, *records: object) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


def test_gsm8k_gives_the_answer_after_the_mark_and_the_working_without_calculator_marks(tmp_path):
    (problem,) = gsm8k(write(tmp_path / "a.jsonl", GSM8K_LINE))
    assert problem.reference == "72"
    assert problem.meta["thought"] == "Tom sold 48/2 = 24 clips in May.\nTom sold 48+24 = 72 in all."
    assert problem.meta["steps"] == 2
    assert worked_completion(problem).endswith("</think> <answer> 72 </answer>")


def test_svamp_gives_body_and_question_and_a_whole_number_without_a_point(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([SVAMP_RECORD]))
    (problem,) = svamp(path)
    assert problem.prompt.endswith("25 dollars on each pack, how much does a pack cost?")
    assert (problem.reference, problem.meta["steps"]) == ("51", 1)
    assert read_problems(path) == [problem]


@pytest.mark.parametrize(
    ("record", "reference"),
    [
        ({"question": "q?", "answer": "7"}, "7"),
        ({"problem": "q?", "answer": 7, "solution": "..."}, "7"),
        ({"prompt": "q?", "answer": 0.5}, "0.5"),
        (GSM8K_LINE, "72"),
    ],
)
def test_plain_lines_are_read_in_the_common_forms(tmp_path, record, reference):
    (problem,) = json_lines(write(tmp_path / "a.jsonl", record))
    assert problem.reference == reference


def test_a_byte_order_mark_windows_line_ends_and_blank_lines_do_no_harm(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"question": "q", "answer": "1"}\r\n\r\n{"question": "r", "answer": "2"}\r\n')
    assert [problem.reference for problem in json_lines(path)] == ["1", "2"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no problem"),
        (b'{"question": "q", "answer": "1"}\n{"question": ', "line 2 is not JSON"),
        (b'{"question": "q", "answer": "1"}\n[1]', "line 2 is no JSON object"),
        (b'\n{"question": "q"}', "line 2 has only 'question'"),
        (b"{}", "has only nothing"),
        (b'{"question": "", "answer": "1"}', "has no text in 'question'"),
        (b'{"question": "q", "answer": ""}', "has no text in 'answer'"),
        (b'{"question": "q", "answer": null}', "has no text in 'answer'"),
        (b'{"question": "q", "answer": true}', "has no text in 'answer'"),
        (b'{"question": "q", "answer": NaN}', "has no text in 'answer'"),
        (b'{"question": "q", "answer": [1]}', "has no text in 'answer'"),
        (b'{"question": 7, "answer": "1"}', "has no text in 'question'"),
        (b'{"question": "q", "answer": ' + b"9" * 5000 + b"}", "line 1 is not JSON"),
        (b"[" * 200_000, "line 1 is not JSON"),
        (b'{"question": "\xff"}', "is not UTF-8 at byte"),
    ],
)
def test_bad_lines_are_named_with_file_and_line(tmp_path, content, words):
    path = tmp_path / "problems.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"problems\.jsonl") as caught:
        json_lines(path)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("[" * 200_000, "nested too deeply"),
        ("[]", "not a list of problems"),
        ('{"a": 1}', "not a list of problems"),
        ("[1]", "problem 1 is no object"),
        (json.dumps([SVAMP_RECORD, {**SVAMP_RECORD, "Body": " "}]), "problem 2 has no text in 'Body'"),
        (json.dumps([{k: v for k, v in SVAMP_RECORD.items() if k != "Answer"}]), "problem 1 lacks 'Answer'"),
    ],
)
def test_bad_svamp_files_are_named_with_the_problem(tmp_path, content, words):
    path = tmp_path / "svamp.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"svamp\.json") as caught:
        svamp(path)
    assert words in str(caught.value)


def test_a_missing_file_and_a_folder_are_user_errors(tmp_path):
    for path in (tmp_path / "absent.jsonl", tmp_path):
        with pytest.raises(UserError, match="reading"):
            json_lines(path)


def test_a_gsm8k_line_without_the_mark_is_refused(tmp_path):
    with pytest.raises(UserError, match="'#### '"):
        gsm8k(write(tmp_path / "a.jsonl", {"question": "q", "answer": "7"}))


def test_a_file_is_a_task_with_splits_rounds_and_the_same_checks(tmp_path):
    records = [{"question": f"What is {n} + 1?", "answer": n + 1} for n in range(50)]
    task = FileTask.read(write(tmp_path / "sums.jsonl", *records))
    sides = {split: list(islice(task.examples(split, seed=0, level=1), 200)) for split in ("train", "held_out")}
    keys = {split: {example.key for example in examples} for split, examples in sides.items()}
    assert len(keys["train"] | keys["held_out"]) == 50 and not keys["train"] & keys["held_out"]
    n = len(keys["train"])
    assert {example.key for example in sides["train"][:n]} == keys["train"], "a round shows every problem once"
    assert sides["train"][:n] != sides["train"][n : 2 * n], "and the next one in another order"
    example = sides["train"][0]
    assert task.name == "sums" and {problem.key for problem in task.problems("train")} == keys["train"]
    assert task.check(example, f"<answer> {example.reference} </answer>").correct
    assert task.check(example, f"It is {example.reference}.", "lenient").correct
    assert not task.check(example, "<answer> 1000 </answer>").correct


def test_a_split_without_problems_or_another_level_is_a_user_error(tmp_path):
    question = next(f"q{n}" for n in range(99))
    task = FileTask.read(write(tmp_path / "one.jsonl", {"question": question, "answer": "1"}))
    (problem,) = read_problems(tmp_path / "one.jsonl")
    other = "train" if split_of(problem.key) == "held_out" else "held_out"
    with pytest.raises(UserError, match=f"no problem in its {other} split"):
        task.examples(other, seed=0)
    with pytest.raises(UserError, match="no level 2"):
        task.examples("train", seed=0, level=2)


@needs_data
@pytest.mark.parametrize(
    ("reader", "name", "n"),
    [(gsm8k, "gsm8k/train.jsonl", 7473), (gsm8k, "gsm8k/test.jsonl", 1319), (svamp, "svamp/SVAMP.json", 1000)],
)
def test_the_real_files_are_read_whole_and_every_reference_is_a_number_equal_to_itself(reader, name, n):
    problems = reader(DATA / name)
    assert len(problems) == n
    for problem in problems:
        assert equal(f"\\boxed{{{problem.reference}}}", problem.reference)
        assert not equal(f"{problem.reference}1", problem.reference)
        assert problem.meta["steps"] >= 0 and "<<" not in problem.prompt
