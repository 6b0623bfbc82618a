"""What was used, kept in a file: totals that outlive the server, in an SQLite database that several may share."""

import sqlite3
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from smallpress.run.errors import UserError, disk_error, one_line

FILE = "usage.sqlite3"
SCHEMA = """
CREATE TABLE IF NOT EXISTS used (
  key TEXT, model TEXT, requests INTEGER, hit INTEGER, miss INTEGER, new INTEGER, thinking INTEGER,
  PRIMARY KEY (key, model)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS busy (model TEXT PRIMARY KEY, seconds REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS since (at INTEGER);
"""
ADD = """
INSERT INTO used VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key, model) DO UPDATE SET
  requests = requests + excluded.requests, hit = hit + excluded.hit, miss = miss + excluded.miss,
  new = new + excluded.new, thinking = thinking + excluded.thinking
"""
ADD_BUSY = "INSERT INTO busy VALUES (?, ?) ON CONFLICT (model) DO UPDATE SET seconds = seconds + excluded.seconds"


class Ledger:
    """`usage.sqlite3` in a folder, which is made. Each charge is one transaction: a killed server loses none of them.

    Of a power cut the last may be lost. UserError: the folder cannot be used, or the file is no ledger. Where the disk
    fills up later, a charge is counted by this server alone, and a line on stderr says so.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, f"writing {folder}") from error
        try:
            self._file = sqlite3.connect(self.path, timeout=1.0, isolation_level="IMMEDIATE", check_same_thread=False)
            self._file.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; {SCHEMA}")
            with self._file:
                self._file.execute("INSERT INTO since SELECT ? WHERE NOT EXISTS (SELECT * FROM since)", [_now()])
            self.since = int(self._file.execute("SELECT min(at) FROM since").fetchone()[0])
            self.used = {
                (str(row[0]), str(row[1])): tuple(map(int, row[2:]))
                for row in self._file.execute("SELECT key, model, requests, hit, miss, new, thinking FROM used")
            }
            self.busy = {str(model): float(s) for model, s in self._file.execute("SELECT model, seconds FROM busy")}
        except (sqlite3.Error, TypeError, ValueError) as error:
            cause = f"{self.path} cannot be used: {one_line(str(error))}"
            raise UserError(cause, "give another --state folder, or move the file away") from error

    def add(self, owner: str, model: str, counts: Sequence[int], busy_seconds: float, base: str | None = None) -> None:
        """Requests, hit, miss, new and thinking tokens more, and so much more of the model's time: both or neither.

        The time of an adapter's engine is its `base`'s.
        """
        try:
            with self._file:
                self._file.execute(ADD, [owner, model, *counts])
                self._file.execute(ADD_BUSY, [base or model, busy_seconds])
        except sqlite3.Error as error:
            print(f"smallpress: {self.path} has not taken a charge of {owner}: {error}", file=sys.stderr, flush=True)

    def close(self) -> None:
        self._file.close()


def _now() -> int:
    return int(time.time())
