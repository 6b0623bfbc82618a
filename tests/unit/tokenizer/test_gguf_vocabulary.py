from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallpress.run.errors import UserError
from smallpress.tokenizer.pre_tokenizers import CUTTING_RULES
from smallpress.tokenizer.tokenizer import Tokenizer

GGML = "tokenizer.ggml."
WRONG = [
    ({"model": "bert"}, "a GGUF vocabulary of the kind 'bert'"),
    ({"model": None}, "a GGUF vocabulary of the kind None"),
    ({"pre": "llama-9"}, r"pre-tokenizer 'llama-9' is not known; .*smollm, llama-bpe"),
    ({"pre": None}, "does not name its pre-tokenizer"),
    ({"pre": "default"}, "pre-tokenizer 'default' is not known"),
    ({"tokens": None}, "has no list tokenizer.ggml.tokens"),
    ({"tokens": [1, 2]}, "has no list tokenizer.ggml.tokens"),
    ({"tokens": []}, "has no tokens"),
    ({"tokens": ["a", "a"]}, "a token twice"),
    ({"tokens": ["a", ""]}, "or an empty one"),
    ({"token_type": [1]}, "does not fit its tokens"),
    ({"token_type": [9] * 265}, "does not fit its tokens"),
    ({"merges": None}, "has no list tokenizer.ggml.merges"),
    ({"merges": ["ab"]}, "merge 0"),
    ({"merges": ["a b c"]}, "merge 0"),
    ({"merges": ["a \u4e2d"]}, "merge 0"),
    ({"eos_token_id": 265}, "eos_token_id is 265"),
    ({"eos_token_id": -1}, "eos_token_id is -1"),
    ({"eos_token_id": 1.5}, "eos_token_id is 1.5"),
    ({"bos_token_id": None, "add_bos_token": True}, "asks for a first token"),
]


@pytest.mark.parametrize(
    ("changes", "said"), WRONG, ids=[f"{next(iter(change))}-{said[:20]}" for change, said in WRONG]
)
def test_metadata_without_a_vocabulary_that_can_be_rebuilt_are_refused(metadata, changes, said):
    for key, value in changes.items():
        metadata.pop(GGML + key, None)
        if value is not None:
            metadata[GGML + key] = value
    with pytest.raises(UserError, match=said):
        Tokenizer.from_gguf(metadata)


@pytest.mark.parametrize(
    ("rule", "pieces"),
    [
        ("gpt-2", ["a", " 12", "'s", " b", "!?", " ", " c"]),
        ("smollm", ["a", " ", "1", "2", "'s", " b", "!?", " ", " c"]),
        ("llama-bpe", ["a", " ", "12", "'s", " b", "!?", " ", " c"]),
        ("qwen2", ["a", " ", "1", "2", "'s", " b", "!?", " ", " c"]),
        ("deepseek-llm", ["a", " ", "1", "2", "'", "s", " b", "!?", " ", " c"]),
        ("deepseek-v3", ["a", " ", "12", "'s", " b", "!?", " ", " c"]),
    ],
)
def test_each_rule_cuts_as_its_reference_does(metadata, rule, pieces):
    """A vocabulary that holds every piece whole and merges letters in order gives one token a piece."""
    words = {piece.replace(" ", "\u0120") for piece in pieces}
    tokens, merges = metadata[GGML + "tokens"], []
    for word in sorted(words):
        for end in range(2, len(word) + 1):
            if word[:end] not in tokens:
                tokens.append(word[:end])
                merges.append(f"{word[: end - 1]} {word[end - 1]}")
    metadata |= {GGML + "pre": rule, GGML + "token_type": [1] * len(tokens), GGML + "merges": merges}
    tokenizer = Tokenizer.from_gguf(metadata)
    ids = tokenizer.encode("a 12's b!?  c")
    assert [tokenizer.decode([id]) for id in ids] == pieces


def test_rules_that_take_known_pieces_whole_and_normalise_are_as_published():
    assert [name for name, rule in CUTTING_RULES.items() if rule.whole_words] == ["llama-bpe", "llama3", "llama-v3"]
    assert [name for name, rule in CUTTING_RULES.items() if rule.normalizer] == ["qwen2", "deepseek-r1-qwen"]


WORDS = ["\u2581", "a", "b", "t", "h", "e", "\u2581t", "he", "\u2581the", "ab", "ba", "aa", "\u2581\u2581", "aba"]
SENTENCEPIECE = {
    GGML + "model": "llama",
    GGML + "tokens": ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS],
    GGML + "token_type": [2, 3, 3] + [6] * 256 + [1] * len(WORDS),
    GGML + "scores": [0.0] * 259 + [-float(rank) for rank in range(len(WORDS))],
    GGML + "bos_token_id": 1,
    GGML + "eos_token_id": 2,
    GGML + "unknown_token_id": 0,
}


def sentencepiece(text: str) -> list[int]:
    """The algorithm in its plainest form: of all neighbours whose union is a word, join the best, leftmost first."""
    pieces = list(("\u2581" + text).replace(" ", "\u2581")) if text else []
    while True:
        unions = [(WORDS.index(a + b), at) for at, (a, b) in enumerate(pairwise(pieces)) if a + b in WORDS]
        if not unions:
            break
        _, at = min(unions)
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    ids = [[259 + WORDS.index(p)] if p in WORDS else [3 + byte for byte in p.encode()] for p in pieces]
    return [id for group in ids for id in group]


@given(st.text(alphabet="ab the\n\u4e2d<s>", max_size=40))
def test_a_sentencepiece_vocabulary_gives_the_ids_of_the_plain_algorithm(text):
    tokenizer = Tokenizer.from_gguf(SENTENCEPIECE)
    assert tokenizer.encode(text) == sentencepiece(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_sentencepiece_vocabulary_begins_with_bos_unless_the_file_says_no():
    assert Tokenizer.from_gguf(SENTENCEPIECE).adds_bos
    assert not Tokenizer.from_gguf(SENTENCEPIECE | {GGML + "add_bos_token": False}).adds_bos


def test_without_add_space_prefix_no_space_is_put_before_a_text():
    tokenizer = Tokenizer.from_gguf(SENTENCEPIECE | {GGML + "add_space_prefix": False})
    assert tokenizer.decode(tokenizer.encode("a")) == "a" and tokenizer.encode("a") == [260]


@pytest.mark.parametrize("scores", [None, [0.0], ["0"] * (259 + len(WORDS))])
def test_a_sentencepiece_vocabulary_without_scores_is_refused(scores):
    with pytest.raises(UserError, match="scores do not fit"):
        Tokenizer.from_gguf({**SENTENCEPIECE, GGML + "scores": scores})
