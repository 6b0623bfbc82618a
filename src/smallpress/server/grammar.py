"""Answers held to a grammar: llguidance says, outside Python, which ids may come next.

A grammar comes from a client and so may be hostile: its size is bounded before it is compiled, and compiling and every
later step have so much fuel and no more. What goes beyond is a 400 that says so. The limits keep a step below a tenth
of a second and a completion below some 40 MB; compiling is done off the event loop, without Python's lock.
"""

import json
import re
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallpress.server.errors import ApiError
from smallpress.tokenizer.calls import TAGS
from smallpress.tokenizer.streaming import StreamDecoder
from smallpress.tokenizer.thinking import CLOSE, OPEN, ThinkingSplitter
from smallpress.tokenizer.tokenizer import Tokenizer

MAX_SCHEMA_CHARS, MAX_SCHEMA_PARTS = 64 << 10, 2000
"""Of a schema as JSON, and of the objects and lists in it; compiling takes time as the square of one's properties."""
LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 300_000,
    "step_lexer_fuel": 100_000,
    "step_max_items": 20_000,
    "max_lexer_states": 20_000,
    "max_grammar_size": 50_000,
    "verbose_errors": False,
}
SPACE = r"\n?[ ]{0,12}"
"""White space between the parts of JSON: enough for a line and its indent, never without end."""
ANY_OBJECT = {"type": "object"}
AFTER_THINKING = ("\n\n", "\n")
MAX_REASON = 300
_SLASH = re.compile(r"(\\.)|/", re.DOTALL)


def json_rule(schema: dict[str, Any], param: str) -> str:
    """A rule of llguidance's Lark dialect for JSON by `schema`; ApiError where that is too large or no JSON."""
    options = {"x-guidance": {"whitespace_pattern": SPACE, "coerce_one_of": True}}
    try:
        text = json.dumps(schema | options, allow_nan=False)
    except ValueError as error:
        raise ApiError(400, f"the schema holds a number that JSON has not: {error}", param, "invalid_value") from error
    if len(text) > MAX_SCHEMA_CHARS or _n_parts(schema) > MAX_SCHEMA_PARTS:
        reason = f"the schema has over {MAX_SCHEMA_CHARS} characters or {MAX_SCHEMA_PARTS} objects and lists"
        raise ApiError(400, reason, param, "schema_too_large")
    return f"%json {text}"


def regex_rule(pattern: str) -> str:
    """A rule for a text that is all matched by `pattern`."""
    escaped = _SLASH.sub(lambda match: match[1] or "\\/", pattern).replace("\n", "\\n")
    return f"/{escaped}/"


def choice_rule(texts: list[str]) -> str:
    """A rule for one of `texts`."""
    return " | ".join(json.dumps(text, ensure_ascii=False) for text in texts)


def _n_parts(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_n_parts, value.values()))
    return 1 + sum(map(_n_parts, value)) if isinstance(value, list) else 0


class Vocabulary:
    """A tokenizer's ids as llguidance knows them, worked out once, when first needed. Safe from several threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._lock = threading.Lock()
        self._known: Any = None
        starts = [tokenizer.encode(text) for text in AFTER_THINKING]
        self.after_thinking = frozenset(ids[0] for ids in starts if len(ids) == 1)

    def compile(self, grammar: str, param: str) -> "Grammar":
        """Takes milliseconds, at most a second. ApiError, with `param`, says what is wrong with the grammar."""
        try:
            from llguidance import LLMatcher, LLParserLimits
        except ImportError:
            raise ApiError(501, "answers in a form need llguidance: pip install 'smallpress[serve]'", param) from None

        try:
            grammar.encode()
        except UnicodeEncodeError:
            raise ApiError(400, f"{param} holds half a surrogate pair", param, "invalid_value") from None
        matcher = LLMatcher(self._tokens(), grammar, log_level=0, limits=LLParserLimits(**LIMITS))
        if matcher.is_error():
            raise ApiError(400, f"{param} cannot be followed: {_reason(matcher)}", param, "invalid_schema")
        return Grammar(self, matcher, param)

    def _tokens(self) -> Any:
        with self._lock:
            if self._known is None:
                from llguidance import LLTokenizer, TokenizerWrapper

                n, ends = self.tokenizer.vocab_size, sorted(self.tokenizer.eos_ids)
                # Where nothing ends a text, an id that nobody can draw stands for the end.
                spelled = TokenizerWrapper(_Spelled(self.tokenizer, n + (not ends), ends[0] if ends else n))
                self._known = LLTokenizer(spelled, n_vocab=n + (not ends), eos_token=ends or [n], slices=None)
        return self._known


class _Spelled:
    """What llguidance asks of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, n: int, eos_id: int) -> None:
        self._tokenizer, self.eos_token_id, self.bos_token_id = tokenizer, eos_id, tokenizer.bos_id
        self.tokens = [tokenizer.token_bytes(id) for id in range(n)]
        thinking, calls = (
            {id for tag in tags if (id := tokenizer.id_of(tag)) is not None} for tags in ((OPEN, CLOSE), TAGS)
        )
        self.special_token_ids = sorted((tokenizer.special_ids | thinking) - calls)

    def __call__(self, text: bytes | str) -> list[int]:
        return self._tokenizer.encode(text if isinstance(text, str) else text.decode(errors="replace"))


class Grammar:
    """A grammar in one vocabulary; `begin` for each completion that follows it."""

    def __init__(self, vocabulary: Vocabulary, matcher: Any, param: str) -> None:
        self._vocabulary, self._matcher, self._param = vocabulary, matcher, param

    def begin(self, opened: bool, may_think: bool) -> "Following":
        return Following(self._vocabulary, self._matcher.deep_copy(), self._param, opened, may_think)


class Following:
    """One completion on its way through a grammar: an engine's Constraint.

    Thinking is free; the grammar begins where it ends. `opened`: the completion begins within it. `may_think`: it may
    begin with the token that opens it.
    """

    def __init__(self, vocabulary: Vocabulary, matcher: Any, param: str, opened: bool, may_think: bool) -> None:
        self._vocabulary, self._matcher, self._param = vocabulary, matcher, param
        self._decoder = StreamDecoder(vocabulary.tokenizer)
        self._splitter = ThinkingSplitter(opened, once=True)
        open_id = vocabulary.tokenizer.id_of(OPEN)
        self._open_id = open_id if may_think and not opened else None
        self._beside = frozenset[int]() if self._open_id is None else frozenset({self._open_id})
        self.fault: ApiError | None = None
        """Set where the grammar turned out to need more than the limits allow; the completion ends."""

    def allowed(self) -> NDArray[np.intp] | None:
        if self._splitter.thinking or self.fault is not None:
            return None
        try:
            bits = self._matcher.compute_bitmask()
        except ValueError as error:
            self._fail(str(error))
            return None
        allowed_V = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")[
            : self._vocabulary.tokenizer.vocab_size
        ]
        ids = allowed_V.nonzero()[0]
        if self._matcher.is_error() or not len(ids):
            self._fail(_reason(self._matcher))
            return None
        return np.union1d(ids, sorted(self._beside)).astype(np.intp) if self._beside else ids

    def push(self, id: int) -> bool:
        if self.fault is not None:
            return True
        if self._splitter.thinking:
            return self._push_thinking(id)
        beside, self._beside = self._beside, frozenset()
        if id == self._open_id and beside:
            self._splitter = ThinkingSplitter(opened=True, once=True)
        elif id not in beside:
            self._consume([id])
        return self.fault is not None or bool(self._matcher.is_stopped())

    def close(self) -> None:
        """The thinking has been closed from outside."""
        self._splitter = ThinkingSplitter(once=True)
        self._beside = frozenset()

    def _push_thinking(self, id: int) -> bool:
        rest = "".join(text for kind, text in self._splitter.push(self._decoder.push(id)) if kind == "answer")
        if not self._splitter.thinking:
            self._beside = self._vocabulary.after_thinking
            if rest:  # of the token that closed the tag
                self._consume(self._vocabulary.tokenizer.encode(rest))
        return self.fault is not None

    def _consume(self, ids: list[int]) -> None:
        if not self._matcher.consume_tokens(ids):
            self._fail(_reason(self._matcher))

    def _fail(self, reason: str) -> None:
        text = f"{self._param} cannot be followed any further: {reason[:MAX_REASON]}"
        self.fault = ApiError(400, text, self._param, "grammar_too_complex")


def _reason(matcher: Any) -> str:
    """What llguidance says, on one line and without its marks."""
    lines = str(matcher.get_error()).replace("<non-verbose/>", "").split("\n")
    return " ".join(line.strip() for line in lines if line.strip(" ^"))[:MAX_REASON] or "it allows no text"
