"""Parquet files, through pyarrow: read by batches of rows, the columns of the text only."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from smallpress.corpus.documents import Document, OnBytes, Tally
from smallpress.corpus.json_files import document_of
from smallpress.run.errors import UserError

BATCH_ROWS = 256


def read_parquet(path: Path, fields: Sequence[str], tally: Tally, on_bytes: OnBytes) -> Iterator[Document]:
    """The file's documents; `fields` as in `json_files.text_under`. Raises UserError where pyarrow is missing."""
    for where, row in rows_of_parquet(path, tally, on_bytes, {key for field in fields for key in field.split("+")}):
        if (document := document_of(row, fields, where, tally)) is not None:
            yield document


def rows_of_parquet(
    path: Path, tally: Tally, on_bytes: OnBytes, columns: set[str] | None = None
) -> Iterator[tuple[str, object]]:
    """(where, row) of each row with those of the `columns` there are. A damaged file is counted from there on."""
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise UserError(f"reading {path} needs {error.name}", "pip install 'smallpress[corpus]'") from error
    try:
        with ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if columns is None or name in columns]
            n_rows, size, number = max(file.metadata.num_rows, 1), path.stat().st_size, 0
            for batch in file.iter_batches(BATCH_ROWS, columns=names):
                before = number
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
                on_bytes(number * size // n_rows - before * size // n_rows)
    except (pyarrow.ArrowException, OSError) as error:
        tally.leave_out("the rest of a damaged Parquet file", f"{path} ({error})")
