"""SIGReg: the formula, its gradient, and the manners of a torch operator."""

from __future__ import annotations

import math
import sys

import pytest

torch = pytest.importorskip("torch")

from lewm.nn import SIGReg, sigreg
from lewm.nn import sigreg_plain as plain

VALUE_TOLERANCE = 1e-5  # relative
GRADIENT_TOLERANCE = 1e-4  # of the gradient's norm


def reference(z, u, knots=17, t_max=3.0):
    """The statistic as LeJEPA defines it, through autograd and with every (T, B, M, K) angle, in float64."""
    z, u = z.double(), u.double()
    s = torch.linspace(0, t_max, knots, dtype=torch.float64)
    phi = torch.exp(-s.square() / 2)
    step = t_max / (knots - 1)
    weights = torch.full((knots,), 2 * step, dtype=torch.float64)
    weights[0] = weights[-1] = step
    angles = (z @ u).unsqueeze(-1) * s
    error = (angles.cos().mean(1) - phi).square() + angles.sin().mean(1).square()
    return (error @ (weights * phi)).mean() * z.shape[1]


def unit_columns(dim, num_proj, seed=0):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(dim, num_proj, generator=generator)
    return u / u.norm(dim=0)


def embeddings(*shape, seed=1, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def value_and_gradient(function, z):
    z = z.clone().requires_grad_()
    value = function(z)
    (gradient,) = torch.autograd.grad(value, z)
    return value.detach(), gradient


def assert_same(function, other, z, value_tolerance=VALUE_TOLERANCE, gradient_tolerance=GRADIENT_TOLERANCE):
    value, gradient = value_and_gradient(function, z)
    expected, expected_gradient = value_and_gradient(other, z)
    assert abs(value.double() / expected.double() - 1) <= value_tolerance
    difference = (gradient.double() - expected_gradient.double()).norm()
    assert difference <= gradient_tolerance * expected_gradient.double().norm()


@pytest.fixture(params=["compiled", "plain"])
def path(request, monkeypatch):
    """Runs a test through the compiled kernels and, with the extension hidden, through plain torch."""
    module = sys.modules["lewm.nn.sigreg"]
    if request.param == "plain":
        monkeypatch.setattr(module, "_core", None)
    elif module._core is None:
        pytest.skip("no compiled extension")
    return request.param


# ----------------------------------------------------------------------------------------------------------------------
# Value and gradient
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 1), (4, 2, 192), (3, 97, 33), (2, 128, 16)])
@pytest.mark.parametrize("num_proj", [1, 45, 300])
def test_equals_the_definition(path, shape, num_proj):
    u = unit_columns(shape[2], num_proj)
    assert_same(lambda z: sigreg(z, directions=u), lambda z: reference(z, u), embeddings(*shape))


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("num_proj", [1, 64])
@pytest.mark.parametrize("collapsed", [False, True])
def test_scale_and_collapse(path, scale, num_proj, collapsed):
    z = embeddings(2, 40, 24, scale=scale)
    if collapsed:
        z = z[:, :1].expand_as(z).contiguous()
    u = unit_columns(24, num_proj)
    assert_same(lambda z: sigreg(z, directions=u), lambda z: reference(z, u), z)


@pytest.mark.parametrize(("knots", "t_max"), [(2, 1.0), (5, 3.0), (64, 5.0), (130, 3.0)])
def test_knots_and_range_are_free(path, knots, t_max):
    u = unit_columns(8, 20)
    assert_same(
        lambda z: sigreg(z, directions=u, knots=knots, t_max=t_max),
        lambda z: reference(z, u, knots, t_max),
        embeddings(3, 30, 8),
    )


def test_large_batch_of_normals(path):
    """The statistic is then a small difference of large sums."""
    u = unit_columns(2, 1)
    assert_same(lambda z: sigreg(z, directions=u), lambda z: reference(z, u), embeddings(1, 100_000, 2))


def test_pooled_is_one_batch_of_all_steps(path):
    z, u = embeddings(3, 20, 6), unit_columns(6, 10)
    assert_same(
        lambda z: sigreg(z, directions=u, pooled=True), lambda z: reference(z.reshape(1, 60, 6), u), z
    )


def test_gaussian_is_better_than_collapsed_and_shifted():
    normal = sigreg(embeddings(1, 512, 16), seed=0)
    assert normal < sigreg(embeddings(1, 512, 16, scale=0.1), seed=0)
    assert normal < sigreg(embeddings(1, 512, 16) + 1, seed=0)


def test_gradient_descent_whitens():
    """Following the gradient takes shifted, narrow embeddings to zero mean and unit variance."""
    z = (0.3 * embeddings(1, 256, 4) + 0.5).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.05)
    for step in range(200):
        optimizer.zero_grad()
        sigreg(z, num_proj=64, seed=step).backward()
        optimizer.step()
    assert z.mean().abs() < 0.1
    assert 0.8 < z.std() < 1.2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_are_computed_in_float32(path, dtype):
    z = embeddings(2, 33, 20).to(dtype).requires_grad_()
    value = sigreg(z, seed=3, num_proj=50)
    assert value.dtype == torch.float32
    exact = z.detach().float().requires_grad_()
    expected = sigreg(exact, seed=3, num_proj=50)
    assert value == expected
    value.backward()
    expected.backward()
    assert z.grad.dtype == dtype
    assert torch.equal(z.grad, exact.grad.to(dtype))


def test_float64_keeps_its_precision():
    z, u = embeddings(2, 20, 5).double(), unit_columns(5, 8).double()
    value = sigreg(z, directions=u)
    assert value.dtype == torch.float64
    assert abs(value / reference(z, u) - 1) < 1e-12


def test_strided_embeddings(path):
    z = embeddings(20, 3, 6).transpose(0, 1)  # how a (B, T, D) batch arrives
    assert_same(
        lambda z: sigreg(z, seed=1, num_proj=9),
        lambda z: sigreg(z.contiguous(), seed=1, num_proj=9),
        z,
        value_tolerance=0,
        gradient_tolerance=0,
    )


def test_nan_and_infinity_show(path):
    for bad in (math.nan, math.inf):
        z = embeddings(2, 10, 4)
        z[0, 3, 2] = bad
        value, gradient = value_and_gradient(lambda z: sigreg(z, seed=0, num_proj=5), z)
        assert value.isnan()
        assert gradient[0].isnan().any()
        assert gradient[1].isfinite().all()


# ----------------------------------------------------------------------------------------------------------------------
# Directions
# ----------------------------------------------------------------------------------------------------------------------


def test_seed_fixes_the_directions(path):
    z = embeddings(2, 30, 12)
    assert sigreg(z, seed=4, num_proj=20) == sigreg(z, seed=4, num_proj=20)
    assert sigreg(z, seed=4, num_proj=20) != sigreg(z, seed=5, num_proj=20)


def test_torch_seed_fixes_unseeded_directions(path):
    z, module = embeddings(2, 30, 12), SIGReg(num_proj=20)
    torch.manual_seed(0)
    first, second = module(z), module(z)
    assert first != second
    torch.manual_seed(0)
    assert module(z) == first


def test_drawn_directions_are_the_documented_ones(path):
    z = embeddings(2, 30, 13)
    u = plain.directions(torch.tensor(2**62 + 5), 13, 37, torch.device("cpu"), torch.float32)
    assert torch.allclose(u.norm(dim=0), torch.ones(37))
    assert_same(lambda z: sigreg(z, seed=2**62 + 5, num_proj=37), lambda z: reference(z, u), z)


def test_drawn_directions_are_isotropic():
    u = plain.directions(torch.tensor(0), 8, 50_000, torch.device("cpu"), torch.float64)
    assert (u @ u.T / 50_000 - torch.eye(8) / 8).abs().max() < 5 * 8**-1 * 50_000**-0.5
    assert u.mean(dim=1).abs().max() < 5 * (8 * 50_000) ** -0.5


# ----------------------------------------------------------------------------------------------------------------------
# The operator
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(dtype, given, requires_grad):
    z = embeddings(2, 7, 5).to(dtype).requires_grad_(requires_grad)
    u = unit_columns(5, 6).to(dtype) if given else None
    seed = torch.tensor(3)
    common = (z, u, seed, 6, 17, 3.0)
    torch.library.opcheck(torch.ops.lewm.sigreg_sums.default, (z.detach(), *common[1:]))
    torch.library.opcheck(torch.ops.lewm.sigreg.default, (*common, None, None, 1.0, requires_grad))
    sums = torch.ops.lewm.sigreg_sums(z.detach(), *common[1:])
    total = torch.tensor(7.0, dtype=torch.float64)
    torch.library.opcheck(torch.ops.lewm.sigreg.default, (*common, sums, total, 2.0, requires_grad))


def test_gradcheck():
    z = embeddings(2, 6, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: sigreg(z, seed=1, num_proj=7), z)
    assert torch.autograd.gradcheck(lambda z: 3 * sigreg(z, seed=1, num_proj=7, pooled=True) ** 2, z)


@pytest.mark.parametrize("seed", [None, 3])
def test_compiles_without_graph_breaks(seed):
    module = SIGReg(num_proj=40)
    compiled = torch.compile(lambda z: 0.09 * module(2 * z, seed=seed), fullgraph=True)
    for batch in (16, 24):
        z = embeddings(2, batch, 8)
        value, gradient = value_and_gradient(compiled, z)
        assert value.isfinite()
        assert gradient.isfinite().all()
        if seed is not None:
            expected, expected_gradient = value_and_gradient(lambda z: 0.09 * module(2 * z, seed=seed), z)
            torch.testing.assert_close(value, expected)
            torch.testing.assert_close(gradient, expected_gradient)


def test_autocast_leaves_it_in_float32(path):
    z = embeddings(2, 30, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, inside_gradient = value_and_gradient(lambda z: sigreg(z, seed=4, num_proj=20), z)
    outside, outside_gradient = value_and_gradient(lambda z: sigreg(z, seed=4, num_proj=20), z)
    assert inside.dtype == torch.float32
    assert inside == outside
    assert torch.equal(inside_gradient, outside_gradient)


@pytest.mark.parametrize("rows", [8, 1200])  # on this thread, and by torch
def test_a_retained_graph_gives_its_gradient_again(rows):
    z = torch.randn(2, rows, 512, requires_grad=True)
    value = sigreg(z, num_proj=8, seed=1)
    (expected,) = torch.autograd.grad(value, z, retain_graph=True)
    for factor in (0.5, 3.0):
        (again,) = torch.autograd.grad(value, z, torch.tensor(factor), retain_graph=factor < 1)
        torch.testing.assert_close(again, factor * expected)
    (factor * sigreg(z, num_proj=8, seed=1)).backward()  # the usual pass, which writes into what it saved
    torch.testing.assert_close(z.grad, factor * expected)


def test_vmap_is_refused():
    with pytest.raises(RuntimeError, match="vmap is not supported"):
        torch.vmap(lambda z: sigreg(z, seed=0, num_proj=4))(embeddings(3, 2, 5, 4))


def test_second_derivative_is_refused():
    z = embeddings(2, 5, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(sigreg(z, seed=0, num_proj=4), z, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        gradient.sum().backward()


# torch's own, on its way to forward mode.
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_forward_mode_is_refused():
    z = embeddings(2, 5, 4)
    with pytest.raises(RuntimeError, match="forward-mode"):
        torch.func.jvp(lambda z: sigreg(z, seed=0, num_proj=4), (z,), (torch.ones_like(z),))
    with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match="forward-mode"):
        sigreg(torch.autograd.forward_ad.make_dual(z, torch.ones_like(z)), seed=0, num_proj=4)


def test_no_gradient_is_made_unasked():
    z = embeddings(2, 5, 4)
    _, gradient = torch.ops.lewm.sigreg(z, None, torch.tensor(0), 4, 17, 3.0, None, None, 1.0, False)
    assert gradient.numel() == 0
    assert not sigreg(z, num_proj=4).requires_grad
    with torch.no_grad():
        assert not sigreg(z.clone().requires_grad_(), num_proj=4).requires_grad


# ----------------------------------------------------------------------------------------------------------------------
# Arguments
# ----------------------------------------------------------------------------------------------------------------------

Z = torch.zeros(2, 5, 4)


@pytest.mark.parametrize(
    ("error", "message", "z", "options"),
    [
        (ValueError, r"z: expected \(T, B, D\), got \(2, 5\)", Z[..., 0], {}),
        (ValueError, r"z: .* no size 0, got \(2, 0, 4\)", Z[:, :0], {}),
        (TypeError, r"z: expected a torch tensor, got ndarray", Z.numpy(), {}),
        (TypeError, r"z: expected a floating dtype, got torch.int64", Z.long(), {}),
        (ValueError, r"num_proj: expected an int of at least 1, got 0", Z, {"num_proj": 0}),
        (ValueError, r"num_proj: expected an int of at least 1, got 8.0", Z, {"num_proj": 8.0}),
        (ValueError, r"knots: expected an int of at least 2, got 1", Z, {"knots": 1}),
        (ValueError, r"knots: expected an int of at least 2, got '17'", Z, {"knots": "17"}),
        (TypeError, r"t_max: expected a number, got '3'", Z, {"t_max": "3"}),
        (ValueError, r"t_max: expected a positive number, got -1", Z, {"t_max": -1.0}),
        (ValueError, r"t_max: expected a positive number, got nan", Z, {"t_max": math.nan}),
        (ValueError, r"seed: expected an int of at least 0, got -1", Z, {"seed": -1}),
        (ValueError, r"seed: expected an int of at least 0, got 0.5", Z, {"seed": 0.5}),
        (ValueError, r"seed: expected an int of at least 0, got tensor\(5\)", Z, {"seed": torch.tensor(5)}),
        (ValueError, r"seed: expected 0 <= seed < 2\*\*63, got 9223372036854775808", Z, {"seed": 2**63}),
        (ValueError, r"directions: expected \(4, M\), got \(3, 8\)", Z, {"directions": unit_columns(3, 8)}),
        (ValueError, r"directions: expected \(4, M\), got \(4,\)", Z, {"directions": torch.ones(4)}),
        (
            TypeError,
            r"directions: expected a floating",
            Z,
            {"directions": torch.ones(4, 2, dtype=torch.int32)},
        ),
        (
            ValueError,
            r"directions: .* without gradient",
            Z,
            {"directions": torch.ones(4, 2, requires_grad=True)},
        ),
    ],
)
def test_bad_arguments_are_named(error, message, z, options):
    with pytest.raises(error, match=message):
        sigreg(z, **options)


def test_constructor_checks():
    with pytest.raises(ValueError, match="knots"):
        SIGReg(knots=1)
    with pytest.raises(ValueError, match="num_proj"):
        SIGReg(num_proj=0)


def test_state_dict_is_the_published_one():
    module = SIGReg(knots=9)
    published = {name: torch.rand(9) for name in ("t", "phi", "weights")}
    module.load_state_dict(published)
    assert list(module.state_dict()) == ["t", "phi", "weights"]


@pytest.mark.peer
def test_equals_the_published_module():
    loss = pytest.importorskip("stable_worldmodel.wm.loss")
    z = embeddings(4, 128, 192)
    published, ours = loss.SIGReg(knots=17, num_proj=1024), SIGReg(knots=17, num_proj=1024)
    for name, buffer in published.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], buffer)
    torch.manual_seed(0)
    u = torch.randn(192, 1024)
    u /= u.norm(dim=0)

    def run_published(z):
        torch.manual_seed(0)
        return published(z)

    assert_same(lambda z: sigreg(z, directions=u), run_published, z)
