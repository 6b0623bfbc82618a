r"""How text is cut before merging, by the name a GGUF file gives it (`tokenizer.ggml.pre`).

A GGUF holds a vocabulary and its merges but only the name of the cutting rule. Each rule below is that of a published
`tokenizer.json`; the patterns are data that must be kept letter by letter. A name whose rule has not been checked
against its reference tokenizer is refused: a wrong cut gives ids that look right and are not.
"""

from dataclasses import dataclass
from typing import Any

from smallpress.run.errors import UserError

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")  # one digit at a time
DEEPSEEK_LLM_LETTERS = (  # the letters that have cases, as Unicode had them when that model was trained
    r"\s?[A-Za-z"
    "\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
    "\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
    "\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
    "]+"
)
DEEPSEEK_V3_WORDS = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class CuttingRule:
    """The parts of a `tokenizer.json` that a GGUF names instead of holding.

    `whole_words`: a piece that is in the vocabulary is taken whole, whatever the merges say. `adds_bos`: the default
    where the file does not say.
    """

    steps: tuple[dict[str, Any], ...]
    normalizer: dict[str, Any] | None = None
    whole_words: bool = False
    adds_bos: bool = False


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


DIGITS = {"type": "Digits", "individual_digits": True}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2_WORDS_AS_BYTES = BYTES | {"use_regex": True}

_GPT2 = CuttingRule((GPT2_WORDS_AS_BYTES,))
_SMOLLM = CuttingRule((DIGITS, GPT2_WORDS_AS_BYTES))
_LLAMA3 = CuttingRule((_split(LLAMA3), BYTES), whole_words=True, adds_bos=True)
_QWEN2 = CuttingRule((_split(QWEN2), BYTES), normalizer={"type": "NFC"})
_HUNYUAN = CuttingRule((_split(QWEN2), BYTES))
_DEEPSEEK_LLM = CuttingRule(
    (
        _split("[\r\n]"),
        _split(DEEPSEEK_LLM_LETTERS),
        _split("\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"),
        _split(r"\s+$"),
        _split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"),
        DIGITS,
        BYTES,
    )
)
_DEEPSEEK_V3 = CuttingRule(
    (_split(r"\p{N}{1,3}"), _split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"), _split(DEEPSEEK_V3_WORDS), BYTES)
)

CUTTING_RULES = {
    "gpt-2": _GPT2,
    "smollm": _SMOLLM,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "deepseek-llm": _DEEPSEEK_LLM,
    "deepseek-v3": _DEEPSEEK_V3,
    "hunyuan": _HUNYUAN,
    "hunyuan-dense": _DEEPSEEK_V3,
}


def cutting_rule(name: object) -> CuttingRule:
    """The rule of that name; raises UserError where it is absent or not known."""
    if isinstance(name, str) and name in CUTTING_RULES:
        return CUTTING_RULES[name]
    known = ", ".join(CUTTING_RULES)
    cause = "the GGUF does not name its pre-tokenizer" if name is None else f"pre-tokenizer {name!r} is not known"
    raise UserError(cause, f"use the model's Hugging Face folder, or a GGUF with one of: {known}")
