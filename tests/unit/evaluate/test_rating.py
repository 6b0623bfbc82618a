import pytest

from smallpress.evaluate.contamination import corpus_lines, seen_in
from smallpress.evaluate.rating import HIGHEST, chance, percentile, rate
from smallpress.run.errors import UserError
from smallpress.tasks.example import Example


def test_the_rating_is_where_as_many_are_expected_solved_as_were():
    difficulties, shares = [1000, 1200, 1600, 2000], [1.0, 0.5, 0.5, 0.0]
    found = rate(difficulties, shares, seed=0).rating
    assert sum(chance(found.value, one) for one in difficulties) == pytest.approx(2.0, abs=1e-6)
    assert found.low < found.value < found.high


def test_a_player_of_1500_is_found_again_within_the_interval():
    difficulties = list(range(800, 2400, 10))
    found = rate(difficulties, [chance(1500, one) for one in difficulties], seed=0)
    assert found.rating.value == pytest.approx(1500, abs=1e-3)


def test_solving_all_gives_only_a_bound():
    found = rate([1200, 1500], [1.0, 1.0], seed=0)
    assert found.bounded and found.rating.value == pytest.approx(HIGHEST)


def test_the_percentile_lies_between_the_tables_points():
    assert (percentile(1200), percentile(-5), percentile(9999)) == (58.57, 0.0, 100.0)
    assert percentile(1250) == pytest.approx((58.57 + 66.91) / 2)


def question(text, key):
    return Example(text, "1", "f", 1, key, {})


def test_ten_words_in_a_row_are_seen_over_the_ends_of_lines_and_nine_are_not():
    ten, nine = "One two, three four five six seven eight nine TEN eleven!", "a b c d e f g h i j"
    lines = ["zero one two three four\n", "five six seven eight nine ten and a b c d e f g h i k"]
    assert seen_in([question(ten, "ten"), question(nine, "nine")], lines) == {"ten"}


def test_a_short_question_is_seen_where_it_stands_whole_and_chinese_by_its_characters():
    asked = [question("What is it?", "short"), question("小勇拍皮球第一次拍了七十七下", "chinese")]
    assert seen_in(asked, ["so what is\n", "it"]) == {"short"}
    assert seen_in(asked, ["昨天小勇拍皮球第一次拍了两下"]) == {"chinese"}


def test_a_benchmarks_own_words_are_no_contamination():
    asked = Example("Why? " + "please reason step by step and put it in a box", "1", "f", 1, "k", {"question": "Why?"})
    assert seen_in([asked], ["please reason step by step and put it in a box"]) == set()


def test_a_corpus_is_a_file_or_a_folder_and_its_faults_are_named(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="holds no file"):
        list(corpus_lines([tmp_path / "a"]))
    (tmp_path / "a" / "t.txt").write_text("x\ny\n")
    assert list(corpus_lines([tmp_path])) == ["x\n", "y\n"]
    (tmp_path / "b.gz").write_bytes(b"none")
    with pytest.raises(UserError, match=r"b\.gz"):
        list(corpus_lines([tmp_path / "b.gz"]))
