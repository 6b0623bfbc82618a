"""smallpress pull"""

import sys
from contextlib import suppress
from typing import Annotated

from cyclopts import Parameter

from smallpress.run.errors import UserError
from smallpress.run.progress import Progress


def pull(
    name: Annotated[str, Parameter(help="A name of the catalogue (see smallpress ls), or org/name on the hub.")],
    /,
    *,
    offline: Annotated[bool, Parameter(help="Open no socket: only check the copy in the store.")] = False,
) -> None:
    """Download a model into the store, checked against its SHA-256.

    The store is SMALLPRESS_HOME, or smallpress in your cache folder.
    """
    from smallpress.weights.identity import misnamed
    from smallpress.weights.load import open_model
    from smallpress.weights.pull import pull as pull_into_store

    with Progress(f"pulling {name}", total=None, unit="B") as progress:
        pulled = pull_into_store(name, offline=offline, on_bytes=progress.reach)
    print(f"{name} was there already:" if pulled.was_there else f"{name} is now in", pulled.path)
    with suppress(UserError):  # a model of a kind that is not run here
        if note := misnamed(name, open_model(pulled.path)):
            print(f"smallpress: {note}", file=sys.stderr)
