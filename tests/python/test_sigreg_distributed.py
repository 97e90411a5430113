"""SIGReg over ranks: value and gradient are those of one process that holds the whole batch."""

from __future__ import annotations

from unittest import mock

import pytest

torch = pytest.importorskip("torch")

import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.nn.parallel import DistributedDataParallel

from lewm.nn import SIGReg, sigreg

TOLERANCE = 1e-5  # relative to the value, and to the gradient's norm
STEPS, DIM, NUM_PROJ = 3, 8, 40
SIZES = [(9,), (5, 7), (4, 1, 6), (6, 0, 3)]  # samples of each rank

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")


def run_ranks(body, sizes, tmp_path):
    """Calls body(rank, sizes) in one process per rank, with a gloo group around it."""
    init = f"file://{tmp_path / 'rendezvous'}"
    multiprocessing.spawn(_rank, (body, sizes, init), nprocs=len(sizes))


def _rank(rank, body, sizes, init):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=init, rank=rank, world_size=len(sizes))
    try:
        body(rank, sizes)
    finally:
        dist.destroy_process_group()


def whole_batch(sizes):
    return torch.randn(STEPS, sum(sizes), DIM, generator=torch.Generator().manual_seed(0))


def share(tensor, rank, sizes):
    """The samples of one rank, from (T, B, ...)."""
    return tensor.split(list(sizes), dim=1)[rank]


def value_and_gradient(z, **options):
    z = z.clone().requires_grad_()
    value = sigreg(z, num_proj=NUM_PROJ, **options)
    (gradient,) = torch.autograd.grad(value, z)
    return value.detach(), gradient


def assert_close(actual, expected):
    assert (actual - expected).norm() <= TOLERANCE * expected.norm()


def network():
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(DIM, 12), torch.nn.Tanh(), torch.nn.Linear(12, 6))


# ----------------------------------------------------------------------------------------------------------------------
# What ranks do (in processes of their own, hence at module level)
# ----------------------------------------------------------------------------------------------------------------------


def check_against_one_process(rank, sizes):
    z = whole_batch(sizes)
    u = torch.nn.functional.normalize(
        torch.randn(DIM, NUM_PROJ, generator=torch.Generator().manual_seed(1)), dim=0
    )
    for options in ({"seed": 5}, {"directions": u}, {"seed": 5, "pooled": True}, {"seed": 5, "knots": 9}):
        expected, expected_gradient = value_and_gradient(z, **options)
        for averaged, factor in ((True, len(sizes)), (False, 1)):
            with mock.patch.object(dist, "all_reduce", wraps=dist.all_reduce) as all_reduce:
                value, gradient = value_and_gradient(
                    share(z, rank, sizes),
                    process_group=dist.group.WORLD,
                    averaged_gradients=averaged,
                    **options,
                )
            assert all_reduce.call_count == 1
            assert_close(value, expected)
            assert_close(gradient / factor, share(expected_gradient, rank, sizes))


def check_ranks_agree_on_directions(rank, sizes):
    torch.manual_seed(100 + rank)  # ranks that draw for themselves would differ
    value = sigreg(share(whole_batch(sizes), rank, sizes), num_proj=NUM_PROJ, process_group=dist.group.WORLD)
    values = [torch.empty_like(value) for _ in sizes]
    dist.all_gather(values, value)
    assert all(other == value for other in values)


def check_subgroup(rank, sizes):
    """A group that does not start at rank 0: its own first rank decides on the directions."""
    group = dist.new_group([1, 2])
    if rank == 0:
        return
    torch.manual_seed(rank)
    value = sigreg(share(whole_batch(sizes), rank, sizes), num_proj=NUM_PROJ, process_group=group)
    values = [torch.empty_like(value) for _ in range(2)]
    dist.all_gather(values, value, group=group)
    assert values[0] == values[1]


def check_ddp(rank, sizes, accumulate):
    """Parameter gradients under DistributedDataParallel, summed over micro-batches, equal one process's."""
    batches = [
        torch.randn(STEPS, sum(sizes), DIM, generator=torch.Generator().manual_seed(i))
        for i in range(accumulate)
    ]

    single, regularizer = network(), SIGReg(num_proj=NUM_PROJ)
    for i, batch in enumerate(batches):
        regularizer(single(batch), seed=i).backward()

    model = DistributedDataParallel(network())
    regularizer = SIGReg(num_proj=NUM_PROJ, process_group=dist.group.WORLD)
    for i, batch in enumerate(batches):
        own = share(batch, rank, sizes)
        if i + 1 < accumulate:
            with model.no_sync():
                regularizer(model(own), seed=i).backward()
        else:
            regularizer(model(own), seed=i).backward()

    for parameter, expected in zip(model.module.parameters(), single.parameters(), strict=True):
        assert_close(parameter.grad, expected.grad)


def check_all(rank, sizes):
    check_against_one_process(rank, sizes)
    check_ranks_agree_on_directions(rank, sizes)
    check_ddp(rank, sizes, accumulate=1)
    check_ddp(rank, sizes, accumulate=3)
    if len(sizes) == 3:
        check_subgroup(rank, sizes)


# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_ranks_equal_one_process(sizes, tmp_path):
    """One group of processes per set of sizes makes all checks: most of the time goes into starting them."""
    run_ranks(check_all, sizes, tmp_path)
