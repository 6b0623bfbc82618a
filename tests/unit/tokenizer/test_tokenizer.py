import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallpress.run.errors import UserError
from smallpress.tokenizer.tokenizer import Tokenizer

BYTES = 6  # the id of byte 0
LOOKALIKES = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>"]


def test_bytes_are_merged_by_rank(tiny):
    assert tiny.encode(" the") == [264]
    assert tiny.encode("he t") == [263, 262]
    assert tiny.encode("A") == [BYTES + 65]


def test_a_control_token_in_plain_text_is_the_bytes_it_is_written_with(tiny):
    assert tiny.encode("<|im_end|>") == [BYTES + byte for byte in b"<|im_end|>"]
    assert tiny.encode("a<|im_end|>", special=True) == [BYTES + 97, 2]


@given(st.text(), st.sampled_from(LOOKALIKES), st.text())
def test_no_text_becomes_a_control_token(tiny, before, lookalike, after):
    ids = tiny.encode(before + lookalike + after)
    assert not tiny.special_ids & set(ids)
    assert tiny.decode(ids) == before + lookalike + after


def test_tags_around_thinking_are_control_tokens_that_decoding_shows(tiny):
    assert tiny.special_ids == {0, 1, 2, 3, 4, 5}
    assert tiny.decode([1, 3, BYTES + 97, 4, 2]) == "<think>a</think>"
    assert tiny.decode([1, BYTES + 97, 2], skip_special=False) == "<|im_start|>a<|im_end|>"


def test_thinking_tags_show_even_where_the_model_marks_them_special(metadata):
    metadata["tokenizer.ggml.token_type"][3:5] = [3, 3]
    assert Tokenizer.from_gguf(metadata).decode([3, BYTES + 97, 4]) == "<think>a</think>"


def test_bytes_that_are_no_utf8_become_replacement_characters(tiny):
    emoji = "😀".encode()
    assert tiny.decode([BYTES + byte for byte in emoji]) == "😀"
    assert tiny.decode([BYTES + byte for byte in emoji[:3]] + [BYTES + 97]) == "\ufffda"


def test_ids_outside_the_vocabulary_stand_for_nothing(tiny):
    assert tiny.decode([BYTES + 97, 10_000]) == "a"


def test_lone_surrogates_are_mended_instead_of_crashing(tiny):
    assert tiny.decode(tiny.encode("a\ud83d\ude00b\ud800")) == "a😀b\ufffd"


def test_every_token_that_ends_a_turn_or_a_document_stops(tiny, metadata):
    assert (tiny.bos_id, tiny.eos_id, tiny.eos_ids, tiny.vocab_size) == (1, 2, {0, 2}, 265)
    metadata["tokenizer.ggml.eot_token_id"] = 5
    assert Tokenizer.from_gguf(metadata).eos_ids == {0, 2, 5}


def test_threads_may_share_one_tokenizer(tiny):
    texts = [f"the {n} <|im_end|> the " * 20 for n in range(16)]
    with ThreadPoolExecutor(8) as pool:
        plain = list(pool.map(tiny.encode, texts))
        special = list(pool.map(lambda text: tiny.encode(text, special=True), texts))
    assert [tiny.decode(ids) for ids in plain] == texts
    assert all(ids.count(2) == 20 for ids in special) and not any(2 in ids for ids in plain)


def test_what_is_saved_loads_as_the_same_tokenizer(tiny, tmp_path):
    tiny.save(tmp_path / "a")
    again = Tokenizer.from_folder(tmp_path / "a")
    text = "the <|im_end|> 12 é"
    assert again.encode(text, special=True) == tiny.encode(text, special=True)
    assert again.encode(text) == tiny.encode(text)
    for name in ("chat_template", "bos_id", "eos_id", "eos_ids", "special_ids", "adds_bos", "vocab_size"):
        assert getattr(again, name) == getattr(tiny, name), name
    again.save(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


@pytest.fixture
def folder(tiny, tmp_path):
    tiny.save(tmp_path)
    return tmp_path


def change(path, **keys):
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | keys))


def test_the_template_file_goes_before_the_one_in_the_config(folder):
    change(folder / "tokenizer_config.json", chat_template="old")
    assert Tokenizer.from_folder(folder).chat_template.startswith("{% for")
    (folder / "chat_template.jinja").unlink()
    assert Tokenizer.from_folder(folder).chat_template == "old"
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    change(folder / "tokenizer_config.json", chat_template=named)
    assert Tokenizer.from_folder(folder).chat_template == "plain"


def test_generation_config_adds_ids_that_end_a_completion(folder):
    change(folder / "config.json", eos_token_id=7)
    assert Tokenizer.from_folder(folder).eos_ids == {0, 2, 7}
    change(folder / "generation_config.json", eos_token_id=[5, 2])
    assert Tokenizer.from_folder(folder).eos_ids == {0, 2, 5}


def test_tokens_listed_only_in_the_older_config_are_taken_over(folder):
    change(folder / "tokenizer_config.json", added_tokens_decoder={"265": {"content": "<x>", "special": True}})
    assert Tokenizer.from_folder(folder).encode("a<x>", special=True) == [BYTES + 97, 265]


def test_bos_is_added_where_the_config_or_the_post_processor_says_so(folder, metadata):
    first = {"single": [{"SpecialToken": {"id": "<|im_start|>"}}, {"Sequence": {"id": "A"}}]}
    change(folder / "tokenizer.json", post_processor={"type": "TemplateProcessing"} | first)
    change(folder / "tokenizer_config.json", add_bos_token=None)
    assert Tokenizer.from_folder(folder).adds_bos
    change(folder / "tokenizer_config.json", add_bos_token=False)
    assert not Tokenizer.from_folder(folder).adds_bos
    assert Tokenizer.from_gguf(metadata | {"tokenizer.ggml.add_bos_token": True}).adds_bos


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "has no tokenizer.json"),
        (b"", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "no tokenizer in it"),
        (b'{"model": {"type": "Unigram"}}', "a Unigram tokenizer, where only BPE is supported"),
    ],
)
def test_a_folder_without_a_usable_tokenizer_is_one_clear_error(folder, content, said):
    (folder / "tokenizer.json").unlink()
    if content is not None:
        (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(UserError, match=said):
        Tokenizer.from_folder(folder)


def test_a_config_that_is_no_object_is_one_clear_error(folder):
    (folder / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(UserError, match=r"tokenizer_config.json is not a JSON object"):
        Tokenizer.from_folder(folder)


def test_saving_where_nothing_can_be_written_is_one_clear_error(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"writing .*file"):
        tiny.save(tmp_path / "file")
