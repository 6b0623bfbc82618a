"""The errors a person can mend: one line with the cause and the remedy, exit code 2, no traceback."""

import errno


class UserError(Exception):
    """Something outside the program is wrong: a file, a setting, a full disk, a missing package.

    `message` names the value at fault, `remedy` says what to do about it. Both may come from untrusted files, so
    control characters and line breaks are shown escaped: the text is always one line.

    >>> str(UserError("group_size is 0", "give at least 2"))
    'group_size is 0; give at least 2'
    """

    exit_code = 2

    def __init__(self, message: str, remedy: str = "") -> None:
        self.message = one_line(message)
        self.remedy = one_line(remedy)
        super().__init__(self.message, self.remedy)

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


def one_line(text: str) -> str:
    r"""The text with everything that is not printable escaped, so that it cannot move a terminal's cursor.

    >>> one_line("a\nb\x1b[2J")
    'a\\nb\\x1b[2J'
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def disk_error(error: OSError, doing: str) -> UserError:
    """An OSError as a UserError; `doing` is a phrase such as 'writing runs/a/run.json'."""
    remedies = {
        errno.ENOSPC: "free some space, or choose a folder on another disk",
        errno.EDQUOT: "free some of your quota, or choose a folder on another disk",
        errno.EACCES: "change the permissions, or choose another folder",
        errno.EPERM: "change the permissions, or choose another folder",
        errno.EROFS: "choose a folder that can be written",
        errno.ENOENT: "check the path",
        errno.ENOTDIR: "check the path: a part of it is a file",
        errno.EISDIR: "give a file, not a folder",
        errno.EMFILE: "raise the limit on open files (ulimit -n)",
        errno.EIO: "the disk reports a fault: check it, and write to another one",
        errno.ENAMETOOLONG: "choose a shorter name",
    }
    cause = (error.strerror or str(error) or type(error).__name__).lower()
    if error.filename is not None and str(error.filename) not in doing:
        cause += f" ({error.filename})"
    return UserError(f"{doing}: {cause}", remedies.get(error.errno or 0, "check the path and the disk"))
