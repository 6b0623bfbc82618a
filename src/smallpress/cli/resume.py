"""smallpress resume"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from smallpress.cli.grpo import resume_run


def resume(
    run: Annotated[Path, Parameter(help="The folder of a run that was stopped.")],
    /,
    *,
    offline: Annotated[bool, Parameter(negative="", help="Open no socket.")] = False,
) -> None:
    """Go on with a run that was stopped, from its newest whole checkpoint."""
    resume_run(run, offline)
