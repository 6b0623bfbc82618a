import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallpress.tokenizer.streaming import StopStrings, StreamDecoder

BYTES = 6
IDS = st.lists(st.integers(0, 264), max_size=60)


def ids_of(text: str | bytes) -> list[int]:
    """One id a byte."""
    return [BYTES + byte for byte in (text.encode() if isinstance(text, str) else text)]


@given(IDS, st.booleans())
def test_a_stream_gives_the_text_decoded_at_once(tiny, ids, skip_special):
    stream = StreamDecoder(tiny, skip_special)
    assert "".join(map(stream.push, ids)) + stream.flush() == tiny.decode(ids, skip_special)


@given(st.text())
def test_every_piece_of_a_stream_is_whole_characters(tiny, text):
    stream = StreamDecoder(tiny)
    so_far = ""
    for id in ids_of(text):
        so_far += stream.push(id)
        assert text.startswith(so_far)
    assert so_far == text and stream.flush() == ""


def test_an_emoji_comes_with_its_last_byte(tiny):
    stream = StreamDecoder(tiny)
    assert [stream.push(id) for id in ids_of("😀a")] == ["", "", "", "😀", "a"]


def test_a_stream_that_ends_within_a_character_ends_in_a_replacement(tiny):
    stream = StreamDecoder(tiny)
    assert [stream.push(id) for id in ids_of("中".encode()[:2])] == ["", ""]
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""


def test_a_long_stream_costs_as_much_an_id_as_a_short_one(tiny):
    def seconds(n):
        stream, stops = StreamDecoder(tiny), StopStrings(tiny, ["aaaab"])
        began = time.process_time()
        for _ in range(n):
            stream.push(BYTES + 97)
            stops.push(BYTES + 97)
        return time.process_time() - began

    seconds(1000)
    short, long = (min(seconds(n) for _ in range(3)) for n in (1_000, 20_000))
    assert long < 80 * short  # 20 where the cost is linear, 400 where it is quadratic


def first_stop(text: str, strings: list[str]) -> tuple[str, str | None]:
    """The text before the string that is complete first, the longest of those complete at once."""
    ends = [(text.find(string) + len(string), -len(string)) for string in strings if string in text]
    if not ends:
        return text, None
    end, length = min(ends)
    return text[: end + length], text[end + length : end]


@given(st.text(alphabet="abé", max_size=30), st.lists(st.text(alphabet="abé", min_size=1, max_size=4), max_size=3))
def test_a_stop_string_is_found_wherever_tokens_are_cut(tiny, text, strings):
    for ids in (ids_of(text), tiny.encode(text)):
        stops = StopStrings(tiny, strings)
        shown, stopped = "", False
        before, by = first_stop(text, strings)
        for id in ids:
            stopped = stops.push(id)
            shown += stops.drain()
            assert before.startswith(shown)
            if stopped:
                break
        assert stops.flush() == stopped == (by is not None)
        assert (shown + stops.drain(), stops.text_before_stop, stops.stopped_by) == (before, before, by)


def test_what_may_begin_a_stop_string_is_held_back_until_it_is_known(tiny):
    stops = StopStrings(tiny, ["\nUser:"])
    shown = []
    for id in ids_of("4\nUse it\nUser: and"):
        stopped = stops.push(id)
        shown.append(stops.drain())
        if stopped:
            break
    assert "".join(shown) == "4\nUse it"
    assert shown[1:6] == ["", "", "", "", "\nUse "]
    assert stops.stopped_by == "\nUser:"
    assert stops.push(BYTES + 97) and stops.drain() == ""


def test_without_stop_strings_nothing_is_held_back(tiny):
    stops = StopStrings(tiny, ["", ""])
    assert not stops.push(BYTES + 97) and stops.drain() == "a"
    assert not stops.flush() and stops.text_before_stop == "a"


@pytest.mark.parametrize("skip_special", [True, False])
def test_a_special_token_shows_or_not_as_in_decode(tiny, skip_special):
    stops = StopStrings(tiny, ["<|im_end|>"], skip_special)
    assert stops.push(2) is not skip_special
