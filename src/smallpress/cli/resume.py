"""smallpress resume"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from smallpress.run.errors import UserError
from smallpress.run.folder import RunFolder


def resume(
    run: Annotated[Path, Parameter(help="The folder of a run that was stopped.")],
    /,
    *,
    offline: Annotated[bool, Parameter(negative="", help="Open no socket.")] = False,
) -> None:
    """Go on with a run that was stopped, from its newest whole checkpoint."""
    from smallpress.cli.distill import resume_distill
    from smallpress.cli.grpo import resume_grpo
    from smallpress.cli.pretrain import resume_pretrain
    from smallpress.cli.r1 import resume_r1
    from smallpress.cli.sft import resume_sft

    go_on = {
        "pretrain": resume_pretrain,
        "sft": resume_sft,
        "distill": resume_distill,
        "grpo": resume_grpo,
        "r1": resume_r1,
    }
    folder = RunFolder.open(run)
    if folder.verb not in go_on:
        raise UserError(f"{run} is a run of {folder.verb}", "go on with the smallpress that began it")
    go_on[folder.verb](folder, offline)
