"""What a `tokenizer.json` from anywhere may hold: refused with one line, never a panic."""

import json

import pytest

from smallpress.run.errors import UserError
from smallpress.tokenizer.definition import build, check_definition

DECODER = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def definition(**changes):
    """A vocabulary of a, b, ab and the control token <s>; `changes` replace parts, a name with a dot an inner one."""
    whole = {
        "added_tokens": [{"id": 3, "content": "<s>", "special": True}],
        "normalizer": None,
        "pre_tokenizer": None,
        "decoder": DECODER,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
    }
    for name, value in changes.items():
        place = whole["model"] if name.startswith("model_") else whole
        place[name.removeprefix("model_")] = value
    return whole


def test_a_good_one_encodes():
    checked = check_definition(definition(), "here")
    start, following = build(checked)
    assert start is following
    assert start.encode("abba").ids == [2, 1, 0]
    assert checked.vocab["<s>"] == 3 and checked.added[0].control


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": None}, "no tokenizer in it"),
        ({"model_type": "WordPiece"}, "a WordPiece tokenizer"),
        ({"model_vocab": None}, "no vocabulary"),
        ({"model_vocab": {"a": 0, "b": 0, "ab": 2}}, "two tokens have the id 0"),
        ({"model_vocab": {"a": -1}}, "has the id -1"),
        ({"model_vocab": {"a": 2**40}}, "has the id 1099511627776"),
        ({"model_vocab": {"a": "0"}}, "has the id '0'"),
        ({"model_vocab": {"a": True}}, "has the id True"),
        ({"model_merges": None}, "no merges"),
        ({"model_merges": ["a"]}, "merge 0 .* is no pair"),
        ({"model_merges": [["a", 1]]}, "merge 0 .* is no pair"),
        ({"model_merges": [["a", ["b"]]]}, "merge 0 .* is no pair"),
        ({"model_merges": [7]}, "merge 0 .* is no pair"),
        ({"model_merges": ["a b", "b a"]}, "merge 1 .* is no pair"),
        ({"model_merges": ["a c"]}, "merge 0 .* is no pair"),
        ({"model_merges": [["a", "c"]], "model_vocab": {"a": 0, "ac": 1}}, "Token `c` out of vocabulary"),
        ({"model_vocab": {"a": 0, "b": 1, "ab": 2, "\ud800": 4}}, "half of a surrogate pair"),
        ({"model_unk_token": ["a"]}, "unk_token is not in the vocabulary"),
        ({"model_continuing_subword_prefix": "##"}, "continuing_subword_prefix is '##'"),
        ({"model_dropout": 0.5}, "dropout is 0.5"),
        ({"model_unk_token": "<unk>"}, "unk_token is not in the vocabulary"),
        ({"added_tokens": {}}, None),
        ({"added_tokens": "x"}, "added_tokens is not a list"),
        ({"added_tokens": [1]}, "an added token is not an object"),
        ({"added_tokens": [{"id": 3, "content": ""}]}, "added token ''"),
        ({"added_tokens": [{"id": 0, "content": "<s>"}]}, "share an id"),
        ({"added_tokens": [{"id": 5, "content": "a"}]}, "share an id"),
        ({"decoder": None}, r"its decoder \(none\) is not supported"),
        ({"decoder": {"type": "WordPiece"}}, "its decoder"),
        ({"pre_tokenizer": {"type": "NoSuch"}}, "the tokenizer is not usable"),
        (
            {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False}},
            "the tokenizer is not usable",
        ),
        ({"normalizer": {"type": "Replace"}}, "the tokenizer is not usable"),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else None,
)
def test_a_bad_one_is_refused_with_one_line(changes, said, capfd):
    if said is None:
        check_definition(definition(**changes), "here")
        return
    with pytest.raises(UserError, match=said):
        build(check_definition(definition(**changes), "here"))
    assert capfd.readouterr() == ("", "")


def test_a_vocabulary_in_which_plain_text_reaches_a_control_token_is_refused():
    control = [{"id": 2, "content": "ab", "special": True}]
    with pytest.raises(UserError, match="ordinary text can become the control token 'ab'"):
        build(check_definition(definition(added_tokens=control), "here"))


def test_added_letters_are_ordinary_text_and_added_markup_is_not():
    tokens = [{"id": 3, "content": "\u00f5"}, {"id": 4, "content": "<tool_call>"}, {"id": 5, "content": "[INST]"}]
    checked = check_definition(definition(added_tokens=tokens), "here")
    assert [token.control for token in checked.added] == [False, True, True]
    assert build(checked)[0].encode("a\u00f5b", add_special_tokens=False).ids == [0, 3, 1]


def test_a_space_before_the_first_word_is_put_before_a_text_and_not_after_a_control_token():
    vocab = {"\u2581": 0, "a": 1, "\u2581a": 2}
    spaces = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
    fallback = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
    model = {"model_vocab": vocab, "model_merges": [["\u2581", "a"]]}
    start, following = build(check_definition(definition(pre_tokenizer=spaces, decoder=fallback, **model), "here"))
    assert start.encode("a a", add_special_tokens=False).ids == [2, 2]
    assert following.encode("a a", add_special_tokens=False).ids == [1, 2]
