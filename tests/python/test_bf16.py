"""bfloat16 products on CPUs without bfloat16 instructions: float32 products of the same numbers, rounded once."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from lewm.training.bf16 import Bf16ThroughFloat32, bf16_products


def step(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x)
        scores = torch.softmax(out @ out.transpose(1, 2), dim=-1) @ out
    return [out, scores, *torch.autograd.grad(scores.float().square().sum(), list(model.parameters()))]


def test_a_linear_layer_rounds_once():
    torch.manual_seed(0)
    layer, x = nn.Linear(300, 40), torch.randn(7, 300)
    expected = nn.functional.linear(
        *(t.detach().bfloat16().double() for t in (x, layer.weight, layer.bias))
    ).bfloat16()
    with Bf16ThroughFloat32(), torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    assert (out != expected).float().mean() < 0.01  # float32 sums that fall on the other side of a rounding


def test_forward_and_backward_agree_with_torch_within_bf16_rounding():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 16)), torch.randn(3, 5, 32)
    plain = step(model, x)
    with Bf16ThroughFloat32():
        replaced = step(model, x)
    for ours, theirs in zip(replaced, plain, strict=True):
        assert ours.dtype == theirs.dtype
        error = (ours.float() - theirs.float()).norm() / theirs.float().norm()
        assert error < 0.02


def test_float32_products_are_left_alone():
    a, b = torch.randn(5, 6), torch.randn(6, 7)
    expected = a @ b
    with Bf16ThroughFloat32():
        assert torch.equal(a @ b, expected)


def test_products_are_replaced_only_where_the_device_lacks_them(monkeypatch):
    supported = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert isinstance(bf16_products(torch.device("cpu")), Bf16ThroughFloat32) == (not supported)
    assert not isinstance(bf16_products(torch.device("cuda")), Bf16ThroughFloat32)
