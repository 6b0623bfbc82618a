"""smallpress ls"""

import json as json_format
import sys
from contextlib import suppress
from typing import Annotated, Any

from cyclopts import Parameter

from smallpress.cli.table import table
from smallpress.run.errors import UserError
from smallpress.weights.catalogue import CATALOGUE
from smallpress.weights.listing import list_models


def ls(*, json: Annotated[bool, Parameter(help="Print JSON.")] = False) -> None:
    """List the models in the store, and those of the catalogue that can be pulled."""
    models = models_here_and_there()
    warn_of_misnamed(models)
    if json:
        print(json_format.dumps(models, indent=2))
        return
    rows = [[model["name"], _size(model["bytes"]), model["licence"] or "", model["note"]] for model in models]
    print(table([["name", "size", "licence", ""], *rows]))


def models_here_and_there() -> list[dict[str, Any]]:
    """Name, bytes, licence, path (None: not pulled yet) and a note on each, those of the store first."""
    stored = list_models()
    found = [
        {
            "name": model.name,
            "bytes": model.nbytes,
            "licence": model.source.licence if model.source else None,
            "path": None if model.problem else str(model.path),
            "note": model.problem or str(model.path),
        }
        for model in stored
    ]
    here = {model.name for model in stored}
    return found + [
        {
            "name": name,
            "bytes": entry.model.size,
            "licence": entry.licence,
            "path": None,
            "note": f"smallpress pull {name}",
        }
        for name, entry in CATALOGUE.items()
        if name not in here
    ]


def warn_of_misnamed(models: list[dict[str, Any]]) -> None:
    """A line on stderr for each model here that goes by a larger one's name; only those files are opened."""
    from smallpress.weights.identity import misnamed, sounds_large
    from smallpress.weights.load import open_model

    for model in models:
        if model["path"] is None or not sounds_large(model["name"]):
            continue
        with suppress(UserError):  # a model of a kind that is not run here
            if note := misnamed(model["name"], open_model(model["path"])):
                print(f"smallpress: {note}", file=sys.stderr)


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e6:.0f} MB"
