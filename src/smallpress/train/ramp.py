"""How many rows each step takes, and which: the batch grows with the tokens seen."""

from smallpress.train.pretrain_settings import PretrainSettings


class Ramp:
    """From `first_batch_tokens` in a straight line to `batch_tokens`, over the first `ramp_tokens`; in whole rows.

    n_steps   of the whole run
    n_tokens  of the whole run
    """

    def __init__(self, settings: PretrainSettings):
        self._settings = settings
        self._first_rows = [0]  # of each step, and of the one after the last
        while not self._is_enough(len(self._first_rows) - 1):
            self._first_rows.append(self._first_rows[-1] + self._rows_after(self._first_rows[-1] * settings.seq_len))
        self.n_steps = len(self._first_rows) - 1
        self.n_tokens = self._first_rows[-1] * settings.seq_len

    def rows(self, step: int) -> range:
        """Numbers of the rows of a step, counted from 0."""
        assert 0 <= step < self.n_steps, f"{step=} of {self.n_steps}"
        return range(self._first_rows[step], self._first_rows[step + 1])

    def share(self, step: int) -> float:
        """How much of the run's tokens was seen before the step."""
        return self._first_rows[step] / self._first_rows[-1]

    def _is_enough(self, n_steps: int) -> bool:
        settings = self._settings
        if settings.steps is not None:
            return n_steps >= settings.steps
        assert settings.tokens is not None
        return self._first_rows[-1] * settings.seq_len >= settings.tokens

    def _rows_after(self, n_tokens: int) -> int:
        settings = self._settings
        size, first = settings.batch_tokens, settings.first_batch_tokens
        if first is not None and n_tokens < settings.ramp_tokens:
            size = round(first + (size - first) * n_tokens / settings.ramp_tokens)
        return max(1, size // settings.seq_len)
