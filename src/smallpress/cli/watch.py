"""smallpress watch"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from smallpress.cli.serve import read_keys
from smallpress.run.errors import UserError

if TYPE_CHECKING:
    from smallpress.run.report_source import Row

MOST_ALARMS = 20


def watch(
    folder: Annotated[Path, Parameter(help="A run's folder, or one that holds runs.")],
    /,
    *,
    host: Annotated[str, Parameter(help="The address; any but this machine's own needs a key.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="0 takes a free one.")] = 8001,
    api_keys: Annotated[Path | None, Parameter(help="A file of keys, a line each: NAME KEY.")] = None,
    allow_host: Annotated[list[str] | None, Parameter(help="Another name this server is asked by.")] = None,
) -> None:
    """Show training runs in the browser while they go on: curves, samples, alarms, the time left.

    Needs no model, and reads the runs' folders only. Without keys only this machine is answered.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder", "give the folder of a run, or one that holds runs")
    from smallpress.server.limits import Limits
    from smallpress.server.listen import allowed_hosts, announce, bound_socket, http_server
    from smallpress.server.watch import Watched, make_watch_app

    keys, limits = read_keys(api_keys), Limits()
    with bound_socket(host, port, keys) as sock:
        hosts = allowed_hosts(host, keys, tuple(allow_host or ()))
        server = http_server(make_watch_app(Watched(folder, alarms_of), keys, limits, hosts), limits, drain_seconds=1)
        announce(sock, f"watching {folder}")
        server.run([sock])


def alarms_of(rows: "Sequence[Row]") -> list[str]:
    """What the trainer warned of at each step, the newest last; of many the last 20."""
    from smallpress.rl.alarms import Alarms

    alarms = Alarms()
    found = [
        f"step {row['step']}: {sentence}"
        for row in rows
        if "reward" not in row or "completions/mean_length" in row
        for sentence in alarms.check(dict(row))
    ]
    return found[-MOST_ALARMS:]
