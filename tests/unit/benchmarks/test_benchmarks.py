import gzip
import json

import pytest

from smallpress.benchmarks.code import extract_code
from smallpress.benchmarks.instructions import INSTRUCTIONS, check_instruction
from smallpress.benchmarks.table import BENCHMARKS, open_benchmark
from smallpress.run.errors import UserError
from smallpress.tasks.check import CheckerError

CHOICES = {"question": "Which swims?", "choices": ["a cat", "a whale"], "answer": 1, "subject": "animals"}
GPQA = {"Question": "Q?", "Correct Answer": "r"} | {f"Incorrect Answer {i}": f"w{i}" for i in (1, 2, 3)}
HUMANEVAL = {
    "prompt": 'def two():\n    """Two."""\n',
    "test": "def check(f):\n    assert f() == 2",
    "entry_point": "two",
    "canonical_solution": "    return 2\n",
}
TWO = "def two():\n    return 2\n"
MBPP = {"task_id": 11, "text": "Write two.", "code": "def two(): return 2", "test_list": ["assert two() == 2"]}
MATH = {"problem": "Q", "solution": r"So \boxed{\frac12}.", "level": "Level 5"}
CMATH = {"input": "问？", "golden": "9", "grade": 3, "reasoning_step": 2}
SVAMP = {"Body": "B.", "Question": "Q?", "Answer": 5.0, "Equation": "( 7 - 2 )", "Type": "Subtraction"}
BBH = {"examples": [{"input": "Close: [ {", "target": "} ]"}]}
IFEVAL = {"prompt": "P", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
FILES = {  # name -> (file name, content, family, reference, a right completion, a wrong one)
    "gsm8k": ("a.jsonl", {"question": "Q?", "answer": "1+1=<<1+1=2>>2\n#### 2"}, "gsm8k", "2", r"\boxed{2}", "2"),
    "math500": ("a.jsonl", MATH, "math500", r"\frac12", r"\boxed{0.5}", r"\boxed{5}"),
    "aime": ("a.csv", "Question,Answer\nQ?,033\n", "aime", "33", r"\boxed{033}", r"\boxed{330}"),
    "mgsm": ("mgsm_zh.tsv", "问？\t11\n", "mgsm/zh", "11", r"\boxed{十一}", r"\boxed{十}"),
    "cmath": ("a.jsonl", CMATH, "cmath", "9", r"\boxed{九页}", r"\boxed{九或十}"),
    "svamp": ("S.json", [SVAMP], "svamp", "5", r"\boxed{5}", r"\boxed{7}"),
    "bbh": ("dyck.json", BBH, "bbh/dyck", "} ]", "<answer> } ] </answer>", "<answer> ] } </answer>"),
    "mmlu": ("a.jsonl", CHOICES, "mmlu/animals", "B", r"\boxed{B}", r"\boxed{A}"),
    "gpqa": ("a.jsonl", GPQA, "gpqa", None, r"\boxed{r}", r"\boxed{w1}"),
    "jsonl": ("a.jsonl", {"question": "Q", "answer": 7, "rating": 1200}, "jsonl", "7", r"\boxed{7}", r"\boxed{8}"),
    "humaneval": ("a.jsonl.gz", HUMANEVAL, "humaneval", None, f"```\n{TWO}\n```", "```\ndef two():\n    return 3\n```"),
    "mbpp": ("a.jsonl", MBPP, "mbpp", MBPP["code"], f"```\n{TWO}\n```", TWO),
    "ifeval": ("a.jsonl", IFEVAL, "ifeval", "punctuation:no_comma", "No comma.", "One, two."),
}


def test_every_benchmark_is_tried_here():
    assert FILES.keys() == BENCHMARKS.keys()


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_asked_and_judged(name, tmp_path):
    file, content, family, reference, right, wrong = FILES[name]
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / file).write_bytes(gzip.compress(text.encode()) if file.endswith(".gz") else text.encode())
    benchmark = open_benchmark(name)
    (example,) = benchmark.read(tmp_path / file)
    assert example.family == family and reference in (None, example.reference)
    assert "{" not in example.prompt.replace("\\boxed{}", "").replace("[ {", "")
    assert benchmark.check(example, f"<think>\\boxed{{0}}</think> {right}").correct
    verdict = benchmark.check(example, wrong)
    assert not verdict.correct and not verdict.error


@pytest.mark.parametrize("name", FILES)
def test_a_record_of_another_form_is_named_with_its_line(name, tmp_path):
    (tmp_path / "x.jsonl").write_text('{"nothing": 1}\n')
    with pytest.raises(UserError, match=r"x\.jsonl, line 1"):
        open_benchmark(name).read(tmp_path / "x.jsonl")


def test_a_wrong_name_names_the_nearest():
    with pytest.raises(UserError, match="did you mean gsm8k"):
        open_benchmark("gsm8")


def test_a_sandbox_that_fails_is_an_error_and_no_wrong_answer(tmp_path):
    def broken(*_):
        raise CheckerError("no room")

    (tmp_path / "a.jsonl").write_text(json.dumps(MBPP))
    benchmark = open_benchmark("mbpp", run_tests=broken)
    verdict = benchmark.check(benchmark.read(tmp_path)[0], "```python\nx\n```")
    assert (verdict.correct, verdict.error, verdict.reason) == (False, True, "no room")


def test_code_comes_from_the_last_block_after_the_thinking():
    assert extract_code("```\na\n```\n<think>```\nb\n```</think>") is None
    assert extract_code("```py\na\n```\ntext\n```Python\nb\n```\n") == "b\n"


def test_damaged_files_are_the_users_error(tmp_path):
    for name, content, said in (
        ("a.jsonl.gz", b"no gzip", "damaged gzip"),
        ("a.json", b"{}", "not a list of problems"),
        ("a.jsonl", b"\xff", "not UTF-8"),
        ("a.csv", b"", "no question"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=said):
            open_benchmark("gsm8k").read(tmp_path / name)


FOLLOWED = [  # instruction, settings, an answer that follows it, one that does not
    ("keywords:existence", {"keywords": ["sea"]}, "The Sea.", "The lake."),
    ("keywords:frequency", {"keyword": "a", "frequency": 2, "relation": "at least"}, "a a", "a"),
    ("keywords:forbidden_words", {"forbidden_words": ["sea"]}, "seal", "a sea"),
    ("keywords:letter_frequency", {"letter": "z", "let_frequency": 1, "let_relation": "less than"}, "abc", "Zoo"),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, "One.", "One. Two."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "a b c", "a b"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "but"},
        "Yes.\n\nBut no.",
        "But.\n\nNo.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] [b]", "[a]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Hi\nP.S. bye", "Hi"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n* b", "* a"),
    ("detectable_format:constrained_response", {}, "My answer is no.", "No."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "*a*", "a"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Part", "num_sections": 2},
        "Part 1\na\nPart 2\nb",
        "Part 1\na",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{a}"),
    ("detectable_format:title", {}, "<<a>>", "<< >>"),
    ("combination:two_responses", {}, "a\n******\nb", "a\n******\na"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "Say it. It.", "It."),
    ("startend:end_checker", {"end_phrase": "The end."}, "So. The end.", "The end. So."),
    ("startend:quotation", {}, '"a"', '"a'),
    ("change_case:capital_word_frequency", {"capital_frequency": 1, "capital_relation": "at least"}, "a BIG one", "a"),
    ("change_case:english_capital", {}, "A B", "A b"),
    ("change_case:english_lowercase", {}, "a b", "a B"),
    ("punctuation:no_comma", {}, "a b", "a, b"),
]


def test_every_instruction_is_tried_here():
    assert {name for name, *_ in FOLLOWED} == INSTRUCTIONS.keys()


@pytest.mark.parametrize(("name", "settings", "good", "bad"), FOLLOWED, ids=[name for name, *_ in FOLLOWED])
def test_an_instruction_is_followed_or_not(name, settings, good, bad):
    assert check_instruction(name, settings, good) and not check_instruction(name, settings, bad)
