"""The one error of the file readers."""

from pathlib import Path

from smallpress.run.errors import UserError


class FormatError(UserError):
    """A model file breaks its format: where (byte offset from the start of the file) and how."""

    def __init__(self, path: Path, offset: int, reason: str, remedy: str = "") -> None:
        super().__init__(f"{path}, byte {offset}: {reason}", remedy or "the file is damaged: fetch or make it again")
        self.path, self.offset, self.reason = path, offset, reason

    def __reduce__(self) -> tuple[type, tuple[Path, int, str, str]]:
        return FormatError, (self.path, self.offset, self.reason, self.remedy)
