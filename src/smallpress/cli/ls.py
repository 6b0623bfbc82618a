"""smallpress ls"""

import json as json_format
from typing import Annotated, Any

from cyclopts import Parameter

from smallpress.cli.table import table
from smallpress.weights.catalogue import CATALOGUE
from smallpress.weights.listing import list_models


def ls(*, json: Annotated[bool, Parameter(help="Print JSON.")] = False) -> None:
    """List the models in the store, and those of the catalogue that can be pulled."""
    models = models_here_and_there()
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


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e6:.0f} MB"
