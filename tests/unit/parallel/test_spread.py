"""Two processes train as one does: whatever is shared out, losses, gradients and checkpoints are the same."""

import math

import pytest
import torch

from smallpress.parallel.checkpoint import load_spread, read_whole, save_spread
from smallpress.parallel.ranks import arranged
from smallpress.parallel.reduce import Traffic, all_reduce
from smallpress.parallel.settings import Parallel
from smallpress.weights.checkpoint import save_trained

STEPS = 3
WAYS = {
    "replicas": ("dense", {}),
    "shards": ("tied", {"shard": 2}),
    "experts": ("sparse", {"expert": 2}),
    "experts and shards": ("sparse", {"expert": 2, "shard": 2}),
    "1f1b": ("dense", {"stages": 2}),
    "zero_bubble": ("dense", {"stages": 2, "schedule": "zero_bubble"}),
    "dualpipe_v": ("tied", {"stages": 2, "schedule": "dualpipe_v"}),
    "bf16": ("dense", {"reduce": "bfloat16"}),
    "int8": ("dense", {"reduce": "int8"}),
}
EXACT = [way for way in WAYS if way not in ("bf16", "int8")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def single(training, config_of_kind):
    """(losses, length of the last gradient) of one process, by kind of model."""
    found = {}
    for kind, config in config_of_kind.items():
        one = training(None, config)
        found[kind] = one.curve(STEPS), one.norm
    return found


@pytest.fixture(scope="module")
def single_in_8_bits(training, config_of_kind, folder):
    """Losses of three steps after a checkpoint of one process."""
    one = training(None, config_of_kind["wide"], optimizer="adamw8")
    one.curve(STEPS)
    save_trained(folder / "one in 8 bits", one, {"seconds": 0})
    return one.curve(STEPS)


@pytest.fixture(scope="module")
def spread_over_two(training, config_of_kind, on_two_ranks, folder, single_in_8_bits):
    """What each of two processes saw, by way of sharing out."""

    def job(world):
        found = {}
        for way, (kind, options) in WAYS.items():
            settings = Parallel(**options)
            one = training(arranged(settings, "cpu", settings.replicas(2)), config_of_kind[kind])
            found[way] = one.curve(STEPS), one.norm, one.weights.traffic.n_bytes
            if way == "experts and shards":
                save_spread(folder / "two", one, {"seconds": 1.5}, one.ranks)
                found["next"] = one.step()
                again = training(one.ranks, config_of_kind[kind])
                load_spread(folder / "two", again, ["seconds"], one.ranks)
                found["again"] = again.step()
        found["sum"] = summed_in_8_bits(world)
        found["8 bits"] = moments_in_8_bits(training, config_of_kind["wide"], folder)
        found["loose"] = loose(training, config_of_kind["dense"])
        return found

    return on_two_ranks(job)


def summed_in_8_bits(world):
    """Of 600 numbers in two tensors: largest error in steps of the coarsest scale, and bytes."""
    parts = [torch.randn(600, generator=torch.Generator().manual_seed(rank)) for rank in (0, 1)]
    mine = parts[world.rank].clone()
    traffic = Traffic()
    all_reduce([mine[:7], mine[7:]], world.group("replica"), "int8", traffic)
    scale = max(part.abs().max() for part in (*parts, parts[0] + parts[1])) / 127
    return float((mine - parts[0] - parts[1]).abs().max() / scale), traffic.n_bytes


def moments_in_8_bits(training, config, folder):
    """Losses of three steps after a checkpoint: of two processes that wrote it, of two that read it, and of one's."""
    ranks = arranged(Parallel(shard=2), "cpu", 1)
    one = training(ranks, config, optimizer="adamw8")
    one.curve(STEPS)
    save_spread(folder / "two in 8 bits", one, {"seconds": 0}, ranks)
    losses = {"went on": one.curve(STEPS)}
    for name in ("two in 8 bits", "one in 8 bits"):
        again = training(ranks, config, optimizer="adamw8")
        load_spread(folder / name, again, ["seconds"], ranks)
        losses[name] = again.curve(STEPS)
    return losses


def loose(training, config):
    """Weights of both replicas before and after they become one, and the loss at the end."""
    settings = Parallel(sync_every=2, outer_lr=1.0, outer_momentum=0.0)
    one = training(arranged(settings, "cpu", 2), config)
    sums = []
    for _ in range(2):
        before = one.weights.end_step
        one.weights.end_step = lambda n: None
        one.step()
        sums.append(float(one.weights.master["embed.weight"].detach().double().sum()))
        before(one.n_done)
        sums.append(float(one.weights.master["embed.weight"].detach().double().sum()))
        one.weights.end_step = before
    return sums


@pytest.mark.parametrize("way", EXACT)
def test_losses_and_gradients_are_those_of_one_process(single, spread_over_two, way):
    losses, norm = single[WAYS[way][0]]
    for of_rank in spread_over_two:
        assert of_rank[way][0] == pytest.approx(losses, rel=1e-5)
        assert of_rank[way][1] == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("way", ["bf16", "int8"])
def test_coarser_sums_stay_near(single, spread_over_two, way):
    assert spread_over_two[0][way][0] == pytest.approx(single["dense"][0], rel=5e-3)
    assert spread_over_two[0][way][0] == spread_over_two[1][way][0]


def test_eight_bits_move_at_most_28_percent_of_the_bytes(spread_over_two):
    wide, half, narrow = (spread_over_two[0][way][2] for way in ("replicas", "bf16", "int8"))
    assert half == wide / 2
    assert 0.25 * wide < narrow <= 0.28 * wide


def test_a_sum_in_8_bits_is_off_by_half_a_step_for_each_rounding(spread_over_two):
    """Two parts and their sum are rounded once each. 600 numbers are 3 blocks, filled up to 2 for each process."""
    error, n_bytes = spread_over_two[0]["sum"]
    assert 0 < error <= 1.5
    assert n_bytes == 2 * (512 + 2 * 4)
    assert spread_over_two[1]["sum"][0] == error


def test_replicas_part_and_become_one_at_every_second_step(spread_over_two):
    (a1, a2, a3, a4), (b1, b2, b3, b4) = (of_rank["loose"] for of_rank in spread_over_two)
    assert (a1, b1) == (a2, b2) and a1 != b1 and a3 != b3
    assert a4 == b4 == pytest.approx((a3 + b3) / 2, rel=1e-5)


def test_a_checkpoint_of_two_goes_on_as_if_never_left(spread_over_two):
    for of_rank in spread_over_two:
        assert of_rank["again"] == of_rank["next"]


def test_a_checkpoint_of_two_goes_on_on_one(training, config_of_kind, folder, spread_over_two):
    one = training(None, config_of_kind["sparse"])
    assert load_spread(folder / "two", one, ["seconds"], one.ranks)["seconds"] == 1.5
    assert one.n_done == STEPS
    assert one.step() == pytest.approx(spread_over_two[0]["next"], rel=1e-5)


def test_moments_in_8_bits_go_on_in_any_number_of_processes(
    training, config_of_kind, folder, single_in_8_bits, spread_over_two
):
    """As before in as many; in more or fewer they are coded anew, which the steps hardly feel."""
    found = spread_over_two[0]["8 bits"]
    assert found["two in 8 bits"] == found["went on"]
    assert found["one in 8 bits"] == pytest.approx(single_in_8_bits, rel=1e-3)
    one = training(None, config_of_kind["wide"], optimizer="adamw8")
    load_spread(folder / "two in 8 bits", one, ["seconds"], one.ranks)
    assert any(tensor.dtype == torch.uint8 for tensor in one.tensors().values())
    without = training(None, config_of_kind["wide"], optimizer="adamw8")
    without.restore(
        {name: tensor for name, tensor in one.tensors().items() if name.startswith("weights/")}, {"n_done": 3}
    )
    kept, lost = one.curve(STEPS), without.curve(STEPS)
    assert kept == pytest.approx(found["went on"], rel=1e-3) != lost


def test_a_whole_model_is_read_from_the_parts_of_two(training, config_of_kind, folder, spread_over_two):
    whole = read_whole(folder / "two")
    names = dict(training(None, config_of_kind["sparse"]).weights.model.named_parameters())
    assert {name: tensor.shape for name, tensor in whole.items()} == {name: p.shape for name, p in names.items()}
    assert math.isfinite(sum(float(tensor.sum()) for tensor in whole.values()))
