import itertools
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from smallpress.run.errors import UserError
from smallpress.run.figure import Axes, Series, line_chart, smoothed, stack_chart, standalone, ticks
from smallpress.run.report import accuracy_figure, write_report


def estimate(value, low, high, n=48):
    return {"value": value, "low": low, "high": high, "n": n}


CHANGE = {
    "before": estimate(0.0625, 0.02, 0.17),
    "after": estimate(0.5, 0.36, 0.64),
    "difference": estimate(0.4375, 0.29, 0.58),
}


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "first-run"
    (folder / "samples").mkdir(parents=True)
    rows = []
    for step in range(1, 13):
        row = {"step": step, "reward": step / 12, "rewards/accuracy/mean": step / 24, "lr": 1e-5, "odd_key": 3.0}
        row |= {"seconds/generate": 20.0, "seconds/train": 40.0, "clip_ratio/high_mean": 0.001, "entropy": "NaN"}
        if step % 4 == 0:
            row |= {"eval/accuracy": step / 16, "eval/low": step / 16 - 0.1, "eval/high": step / 16 + 0.1}
            row |= {f"eval/product/{end}": step / 16 for end in ("accuracy", "low", "high")}
        rows.append(row)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "result.json").write_text(json.dumps(CHANGE | {"by_family": {"product": CHANGE}}))
    sample = {"step": 4, "prompt": "User: What is 3 x 4?\nAssistant:", "completion": "<think> Wait </think>"}
    sample |= {"reward": 1.0, "rewards": {"accuracy": 1.0}, "reference": "12"}
    (folder / "samples" / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    (folder / "run.json").write_text(json.dumps({"settings": {"optim": {"lr": 1e-5}}, "machine": {"cores": 2}}))
    return folder


class Page(HTMLParser):
    """The elements of a page and everything in it that could reach out of it."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.words += data


def read_page(folder):
    return write_report(folder).read_text(encoding="utf-8")


def test_the_page_holds_curves_gains_thoughts_settings_and_machine(run_folder):
    page = Page(read_page(run_folder))
    for words in ("first-run", "What it gained", "+43.8", "+29.0 to +58.0", "Reward by part", "accuracy", "Step 4"):
        assert words in page.words
    for words in ("What is 3 x 4?", "<think>", "reference", "optim.lr", "1e-05", "cores", "odd_key", "product 75 %"):
        assert words in page.words
    assert "12 min" in page.words  # 12 steps of 60 seconds


def test_the_page_needs_no_network_and_no_script(run_folder):
    html = read_page(run_folder)
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert not {"src", "href", "xlink:href", "srcset", "action"} & names
    assert not [name for name in names if name.startswith("on")]
    assert not re.search(r"url\(|@import|https?:", html)
    assert "default-src 'none'" in dict(page.attributes)["content"] or "default-src 'none'" in html


HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\x00\ud800\u2028"


def test_what_a_model_or_a_file_says_never_becomes_markup(run_folder):
    sample = {"step": 1, "prompt": HOSTILE, "completion": HOSTILE, "reference": HOSTILE, "rewards": {HOSTILE: 1}}
    (run_folder / "samples" / "hostile.jsonl").write_text(json.dumps(sample) + "\n")
    (run_folder / "run.json").write_text(json.dumps({HOSTILE: {HOSTILE: [HOSTILE]}, "x": HOSTILE}))
    row = {"step": 13, f"rewards/{HOSTILE}/mean": 1.0, f"eval/{HOSTILE}/accuracy": 1.0, HOSTILE: 1.0}
    with (run_folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    result = CHANGE | {"by_family": {HOSTILE: CHANGE}, "before_label": HOSTILE}
    (run_folder / "result.json").write_text(json.dumps(result))
    page = Page(read_page(run_folder))
    assert not {"script", "img"} & set(page.tags)
    assert page.words.count("alert(1)") >= 8
    ElementTree.fromstring(accuracy_figure(run_folder))


def test_an_empty_run_still_has_a_page(tmp_path):
    assert "0 steps so far" in read_page(tmp_path)


def test_numbers_that_are_not_finite_leave_the_curves_drawable(tmp_path):
    lines = ['{"step": 1, "reward": "NaN"}', '{"step": 2, "reward": "Infinity"}', '{"step": 3, "reward": 0.5}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    html = read_page(tmp_path)
    assert not re.search(r'd="[^"]*(nan|inf)', html)


def test_a_line_cut_short_by_a_kill_is_left_out(run_folder):
    for path in (run_folder / "metrics.jsonl", run_folder / "samples" / "samples.jsonl"):
        with path.open("a") as file:
            file.write('{"step": 13, "rew')
    assert "Step 4" in Page(read_page(run_folder)).words


@pytest.mark.parametrize("name", ["result.json", "run.json", "samples/samples.jsonl", "metrics.jsonl"])
def test_a_broken_file_is_named(run_folder, name):
    (run_folder / name).write_text("{broken\n{}\n")
    with pytest.raises(UserError, match=name):
        write_report(run_folder)


@pytest.mark.parametrize(
    "change", [{"before": 3}, {"after": {"value": "high"}}, {"difference": None}, {"by_family": 7}]
)
def test_a_result_of_another_shape_is_left_out_rather_than_misread(run_folder, change):
    (run_folder / "result.json").write_text(json.dumps(CHANGE | change))
    read_page(run_folder)


def test_a_missing_folder_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        write_report(tmp_path / "nothing")


def test_the_figure_is_one_valid_svg_file_with_a_band_over_minutes(run_folder):
    text = accuracy_figure(run_folder, x="minutes", title="Learning & more", note="held out")
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme:dark" in text
    assert text.count('class="band') == 1
    assert "at minutes 4: 25 %" in text  # the first evaluation came after four steps of a minute


def test_a_figure_without_evaluations_says_so(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "reward": 0.5}\n')
    with pytest.raises(UserError, match="no held-out accuracy"):
        accuracy_figure(tmp_path)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 47, [0, 10, 20, 30, 40, 50]), (-0.3, 0.3, [-0.4, -0.2, 0, 0.2, 0.4])],
)
def test_ticks_are_round_and_cover_the_data(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_ticks_of_a_single_value_still_span_something():
    for value in (0.0, 1e-9, 5.0, -3.0, 1e12):
        found = ticks(value, value)
        assert len(found) >= 2
        assert found[0] <= value <= found[-1]


def test_smoothing_keeps_a_constant_and_a_straight_line_and_does_not_lag():
    assert [y for _, y in smoothed([(x, 2.0) for x in range(20)])] == pytest.approx([2.0] * 20)
    line = smoothed([(float(x), float(x)) for x in range(41)])
    assert line[20] == pytest.approx((20.0, 20.0))


def test_ten_thousand_points_are_thinned():
    svg = line_chart([Series("reward", [(i, i % 7) for i in range(10_000)])], Axes())
    assert len(svg) < 40_000


def test_a_single_point_and_a_flat_stack_can_be_drawn():
    for svg in (
        line_chart([Series("one", [(3, 0.5)])], Axes()),
        stack_chart([Series("a", [(1, 0.0), (2, 0.0)]), Series("b", [(2, 1.0)])], Axes()),
    ):
        ElementTree.fromstring(standalone(svg))
    assert line_chart([], Axes()) == stack_chart([Series("none", [])], Axes()) == ""


def test_end_labels_do_not_cover_each_other():
    svg = line_chart([Series(f"curve {i}", [(0, 0.0), (1, 0.5)]) for i in range(6)], Axes(top=1.0))
    heights = sorted(float(y) for y in re.findall(r'class="end[^>]* y="([\d.]+)"', svg))
    assert all(after - before >= 14 for before, after in itertools.pairwise(heights))
