"""Text out of ids while they are being sampled."""

import codecs
from collections.abc import Sequence

from smallpress.tokenizer.tokenizer import Tokenizer


class StreamDecoder:
    """`Tokenizer.decode`, one id at a time: the pieces pushed and flushed together equal the text decoded at once.

    A character spread over several tokens (an emoji, most Chinese) comes out with its last one; bytes that turn out to
    be no UTF-8 come out as U+FFFD. An id costs the same however long the text already is.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True) -> None:
        self._bytes_of = tokenizer.shown_bytes if skip_special else tokenizer.token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip_space = tokenizer.strips_space

    def push(self, id: int) -> str:
        """The text that `id` completes; often a word, empty within a character."""
        data = self._bytes_of(id)
        if data and self._strip_space:
            data, self._strip_space = data.removeprefix(b" "), False
        return self._decoder.decode(data)

    def flush(self) -> str:
        """The rest, at the end of the stream: U+FFFD where it stops within a character."""
        return self._decoder.decode(b"", final=True)

    @property
    def within_character(self) -> bool:
        return bool(self._decoder.getstate()[0])


class StopText:
    """Watches a text for strings that end it, wherever the borders between its pieces fall.

    `push_text` says whether one has appeared. `drain` gives the text that is certain to come before any stop string,
    each character once: what to show while streaming. The string completed first counts, and of two that end together
    the longer one.
    """

    def __init__(self, strings: Sequence[str] = ()) -> None:
        self._matchers = [_Matcher(string) for string in strings if string]
        self._shown: list[str] = []
        self._certain: list[str] = []
        self._pending = ""  # may turn out to begin a stop string
        self._offset = 0  # where pending begins in the text
        self.stopped_by: str | None = None

    def push_text(self, text: str) -> bool:
        """Take a piece; True when a stop string is complete. After that, further pieces change nothing."""
        if self.stopped_by is None:
            self._take(text)
        return self.stopped_by is not None

    def flush(self) -> bool:
        """End the text: what was held back belongs to it. True as for `push_text`."""
        if self.stopped_by is None:
            self._release(len(self._pending))
        return self.stopped_by is not None

    def drain(self) -> str:
        """The certain text not given out before."""
        text = "".join(self._certain)
        self._shown.append(text)
        self._certain = []
        return text

    @property
    def text_before_stop(self) -> str:
        """All text up to the stop string, or all text so far."""
        return "".join(self._shown) + "".join(self._certain) + self._pending

    def _take(self, text: str) -> None:
        start = self._offset + len(self._pending)
        self._pending += text
        ends = [
            (end, -len(m.string), m.string) for m in self._matchers if (end := m.first_end(text, start)) is not None
        ]
        if ends:
            end, length, self.stopped_by = min(ends)
            self._pending = self._pending[: end + length - self._offset]
            self._release(len(self._pending))
            return
        held = max((m.matched for m in self._matchers), default=0)
        self._release(len(self._pending) - held)

    def _release(self, n_chars: int) -> None:
        self._certain.append(self._pending[:n_chars])
        self._pending = self._pending[n_chars:]
        self._offset += n_chars


class StopStrings(StopText):
    """The same for a stream of ids."""

    def __init__(self, tokenizer: Tokenizer, strings: Sequence[str] = (), skip_special: bool = True) -> None:
        super().__init__(strings)
        self._decoder = StreamDecoder(tokenizer, skip_special)

    def push(self, id: int) -> bool:
        """Take one id; True when a stop string is complete. After that, further ids change nothing."""
        return self.push_text(self._decoder.push(id))

    def flush(self) -> bool:
        """End the stream; a cut character becomes U+FFFD."""
        self.push_text(self._decoder.flush())
        return super().flush()


class _Matcher:
    """Knuth-Morris-Pratt: the text so far ends with the first `matched` characters of `string`, and no more of them."""

    def __init__(self, string: str) -> None:
        self.string, self.matched = string, 0
        self._fall = _borders(string)

    def first_end(self, text: str, start: int) -> int | None:
        """Take `text`, which begins at position `start`; the position just after the first match, if there is one."""
        for at, char in enumerate(text, start + 1):
            while self.matched and char != self.string[self.matched]:
                self.matched = self._fall[self.matched - 1]
            self.matched += char == self.string[self.matched]
            if self.matched == len(self.string):
                self.matched = self._fall[-1]
                return at
        return None


def _borders(string: str) -> list[int]:
    """For each beginning of `string`, the length of its longest proper beginning that is also its end."""

    def longer(border: int, at: int) -> int:
        while border and string[at] != string[border]:
            border = borders[border - 1]
        return border + (string[at] == string[border])

    borders = [0]
    for at in range(1, len(string)):
        borders.append(longer(borders[-1], at))
    return borders
