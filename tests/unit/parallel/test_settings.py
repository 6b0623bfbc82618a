"""What cannot be shared out is refused, with the number at fault and the remedy."""

import pytest
from pydantic import ValidationError

from smallpress.model.config import MTP
from smallpress.model.transformer import Transformer
from smallpress.parallel.settings import Parallel
from smallpress.parallel.stages import check_micro_batches, check_stages
from smallpress.run.errors import UserError


def test_what_torchrun_starts_beyond_one_copy_are_replicas():
    assert Parallel(shard=2).replicas(8) == 4
    assert Parallel(stages=2).replicas(4) == 2
    with pytest.raises(UserError, match="3 processes are no multiple of 2"):
        Parallel(shard=2).replicas(3)
    with pytest.raises(UserError, match="expert=3 does not divide the 4 processes"):
        Parallel(expert=3).replicas(4)


def test_a_resumed_run_fits_any_number_of_processes():
    run = Parallel(shard=4, expert=4)
    assert [(p.shard, p.expert, p.replicas(n)) for n in (1, 2, 6, 8) if (p := run.fitted(n))] == [
        (1, 1, 1),
        (2, 2, 1),
        (2, 2, 3),
        (4, 4, 2),
    ]
    assert Parallel(stages=4, schedule="dualpipe_v").fitted(1).stages == 1


@pytest.mark.parametrize("options", [{"stages": 2, "shard": 2}, {"sync_every": 4, "shard": 4, "expert": 2}])
def test_what_does_not_go_together_is_refused(options):
    with pytest.raises(ValidationError):
        Parallel(**options)


@pytest.mark.parametrize(
    ("kind", "change", "options", "why"),
    [
        ("dense", {}, {"stages": 5}, "4 layers do not make 5 stages"),
        ("dense", {}, {"stages": 3, "schedule": "dualpipe_v"}, "4 layers do not make 6 stages"),
        ("dense", {"mtp": MTP(n_modules=1)}, {"stages": 2}, "multi-token prediction"),
        ("tied", {}, {"stages": 2}, "a tied head would be on the first and on the last stage"),
    ],
)
def test_a_pipeline_refuses_what_it_cannot_hold(config_of_kind, kind, change, options, why):
    model = Transformer(config_of_kind[kind].model_copy(update=change))
    with pytest.raises(UserError, match=why):
        check_stages(model, Parallel(**options))


def test_a_schedule_says_how_many_micro_batches_it_needs():
    check_micro_batches(Parallel(stages=2), 2)
    with pytest.raises(UserError, match="needs 4 micro-batches a step, not 3"):
        check_micro_batches(Parallel(stages=2, schedule="dualpipe_v"), 3)
    with pytest.raises(UserError, match="a multiple of 2 micro-batches a step, not 5"):
        check_micro_batches(Parallel(stages=2, schedule="zero_bubble"), 5)
