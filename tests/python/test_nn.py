"""The torch model: names and sizes of its tensors, its loss, and that no part of it is left out of training."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F

import lewm
from lewm.checkpoint import expected_shapes
from lewm.nn import LeWM, vit
from lewm.nn.attention import attend, self_attend
from lewm.nn.batch_norm import BatchNorm
from lewm.nn.vit import grid_waves
from lewm.training.calibration import calibrate

PUBLISHED_TENSORS = 303
PUBLISHED_NUMBERS = 18_042_672

SMALL = lewm.LeWMConfig(
    image_size=32,
    patch_size=8,
    encoder_dim=24,
    encoder_depth=2,
    encoder_heads=3,
    encoder_mlp_dim=40,
    latent_dim=20,
    projector_dim=28,
    pred_proj_dim=36,
    history=3,
    predictor_depth=2,
    predictor_heads=2,
    predictor_head_dim=6,
    predictor_mlp_dim=30,
    predictor_dim=16,
    predictor_output_dim=12,
    action_dim=3,
    frame_skip=2,
)


def small_model(config: lewm.LeWMConfig = SMALL, **kwargs) -> LeWM:
    """A model whose weights are all different from 0, adaLN's included."""
    torch.manual_seed(0)
    model = LeWM(config, **kwargs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def small_batch(windows: int = 6, frames: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    size = SMALL.image_size
    return {
        "pixels": torch.randint(
            0, 256, (windows, frames, size, size, 3), generator=generator, dtype=torch.uint8
        ),
        "action": torch.randn(windows, frames, SMALL.block_dim, generator=generator),
    }


def test_published_sizes():
    state = LeWM().state_dict()
    assert len(state) == PUBLISHED_TENSORS
    assert sum(tensor.numel() for tensor in state.values()) == PUBLISHED_NUMBERS


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"projector_norm": "layer"},
        {"projector_norm": "none"},
        {"projector_dim": 0, "encoder_dim": 20, "encoder_heads": 2},
        {"predictor_heads": 1, "predictor_head_dim": 16},
    ],
)
def test_names_and_shapes_are_those_of_checkpoints(changes):
    config = lewm.LeWMConfig.from_dict({**SMALL.__dict__, **changes})
    state = LeWM(config).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected_shapes(config)


def test_save_and_from_checkpoint_keep_everything(tmp_path):
    scales = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.1]}
    model = small_model(preprocessing=scales, action_scaling=scales)
    for path in (tmp_path / "model.safetensors", tmp_path / "published"):
        lewm.save(model, path)
        loaded = LeWM.from_checkpoint(path)
        assert loaded.config == SMALL
        assert loaded.preprocessing == scales
        assert loaded.action_scaling == scales
        assert not loaded.training
        for name, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name


def test_uint8_and_normalised_float_images_agree():
    model = small_model().eval()
    pixels = small_batch()["pixels"]
    mean, std = (torch.tensor(model.preprocessing[key]) for key in ("mean", "std"))
    floats = ((pixels / 255 - mean) / std).movedim(-1, -3)
    with torch.no_grad():
        torch.testing.assert_close(model.encode(pixels), model.encode(floats), atol=1e-5, rtol=0)


def test_encoder_equals_a_literal_vision_transformer():
    """Computes every token of every layer, one projection at a time."""
    model = small_model(attention="sdpa").eval()
    state = model.state_dict()
    pixels = torch.randn(5, 3, 32, 32)

    def linear(x, name):
        return F.linear(x, state[f"encoder.{name}.weight"], state[f"encoder.{name}.bias"])

    def norm(x, name):
        return F.layer_norm(
            x, x.shape[-1:], state[f"encoder.{name}.weight"], state[f"encoder.{name}.bias"], 1e-12
        )

    projection = "encoder.embeddings.patch_embeddings.projection"
    patches = F.conv2d(pixels, state[f"{projection}.weight"], state[f"{projection}.bias"], stride=8)
    x = torch.cat(
        [state["encoder.embeddings.cls_token"].expand(5, -1, -1), patches.flatten(2).transpose(1, 2)], 1
    )
    x = x + state["encoder.embeddings.position_embeddings"]
    for n in range(SMALL.encoder_depth):
        layer = f"encoder.layer.{n}"
        h = norm(x, f"{layer}.layernorm_before")
        q, k, v = (
            linear(h, f"{layer}.attention.attention.{name}").view(5, 17, 3, 8).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        h = torch.softmax(q @ k.transpose(2, 3) / 8**0.5, -1) @ v
        x = x + linear(h.transpose(1, 2).reshape(5, 17, 24), f"{layer}.attention.output.dense")
        h = norm(x, f"{layer}.layernorm_after")
        x = x + linear(F.gelu(linear(h, f"{layer}.intermediate.dense")), f"{layer}.output.dense")
    expected = norm(x, "layernorm")[:, 0]
    with torch.no_grad():
        torch.testing.assert_close(model.encoder(pixels), expected, atol=1e-5, rtol=1e-5)


def test_groups_of_images_change_nothing_but_the_order_of_sums(monkeypatch):
    model, images = small_model().encoder, small_batch()["pixels"].flatten(0, 1)
    taken = []
    whole = vit.VisionTransformer._cls
    monkeypatch.setattr(
        vit.VisionTransformer, "_cls", lambda self, x: (taken.append(len(x)), whole(self, x))[1]
    )
    results = []
    monkeypatch.setattr(vit, "_GROUP_ELEMENTS", 5 * model._widest)
    for images_at_once in (len(images), len(images) - 1):
        monkeypatch.setattr(vit, "_WHOLE_ELEMENTS", images_at_once * model._widest)
        model.zero_grad()
        latents = model(images)
        latents.square().sum().backward()
        results.append([latents, *(parameter.grad for parameter in model.parameters())])
    assert taken == [24, 5, 5, 5, 5, 4]
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_formulations_agree(causal):
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 2, 7, 5, dtype=torch.float64, requires_grad=True) for _ in range(3))
    upstream = torch.randn(3, 2, 7, 5, dtype=torch.float64)
    results = []
    for kind in ("matmul", "sdpa"):
        out = attend(q, k, v, causal=causal, kind=kind)
        results.append((out, *torch.autograd.grad(out, (q, k, v), upstream)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_packed_attention_formulations_agree():
    torch.manual_seed(0)
    qkv = torch.randn(3, 7, 3 * 2 * 5, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(3, 7, 10, dtype=torch.float64)
    results = []
    for kind in ("matmul", "sdpa"):
        out = self_attend(qkv, heads=2, kind=kind)
        results.append((out, *torch.autograd.grad(out, qkv, upstream)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
    q, k, v = qkv.view(3, 7, 3, 2, 5).permute(2, 0, 3, 1, 4)
    apart = attend(q, k, v, kind="matmul").transpose(1, 2).flatten(2)
    torch.testing.assert_close(results[0][0], apart)
    assert torch.autograd.gradcheck(lambda packed: self_attend(packed, 2, "matmul"), qkv)


def test_loss_is_the_published_formula_and_so_is_its_gradient():
    """There is no stop-gradient: the encoder also learns through the prediction's target."""
    model = small_model(dropout=0.0)
    batch = small_batch()
    weight, seed = 0.3, 11
    out = model.loss(batch, weight, num_proj=32, knots=9, seed=seed)

    latents = model.encode(batch["pixels"])
    predicted = model.predict(latents[:, :3], batch["action"][:, :3])
    pred_loss = ((predicted - latents[:, 1:]) ** 2).mean()
    sigreg_loss = lewm.sigreg(latents.transpose(0, 1), num_proj=32, knots=9, seed=seed)
    loss = pred_loss + weight * sigreg_loss
    torch.testing.assert_close(out["pred_loss"], pred_loss.detach())
    torch.testing.assert_close(out["sigreg_loss"], sigreg_loss.detach())
    torch.testing.assert_close(out["loss"], loss)
    parameters = list(model.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(out["loss"], parameters), torch.autograd.grad(loss, parameters)
    )
    assert out["latents"].dtype == torch.float32 and out["latents"].shape == (6, 4, SMALL.latent_dim)


@pytest.mark.parametrize("autocast", [False, True])
def test_every_parameter_gets_a_gradient(autocast):
    model = small_model()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = model(small_batch(), 0.1, num_proj=16, seed=0)
    assert out["loss"].dtype == torch.float32
    out["loss"].backward()
    key_bias = "attention.attention.key.bias"  # softmax does not see what is added to all keys alike
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if not name.endswith(key_bias):
            assert parameter.grad.abs().max() > 0, name


def test_bfloat16_loss_is_close_to_float32():
    model = small_model(dropout=0.0)
    batch = small_batch()
    exact = model.loss(batch, 0.1, num_proj=64, seed=0)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.loss(batch, 0.1, num_proj=64, seed=0)
    similarity = F.cosine_similarity(exact["latents"], rounded["latents"], dim=-1)
    assert similarity.min() > 0.995
    torch.testing.assert_close(rounded["loss"], exact["loss"], rtol=0.03, atol=0)


def test_predictor_is_causal():
    model = small_model().eval()
    latents, actions = torch.randn(2, 3, SMALL.latent_dim), torch.randn(2, 3, SMALL.block_dim)
    with torch.no_grad():
        before = model.predict(latents, actions)
        latents[:, 2] += 1
        actions[:, 2] -= 1
        after = model.predict(latents, actions)
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert (after[:, 2] - before[:, 2]).abs().max() > 1e-3


@pytest.mark.parametrize("context", [1, 2, 3])
def test_rollout_feeds_its_predictions_back(context):
    """Against one problem and candidate at a time, window by window."""
    model = small_model().eval()
    latents = torch.randn(2, context, SMALL.latent_dim)
    actions = torch.randn(2, 3, 4, SMALL.block_dim)
    past = torch.randn(2, context - 1, SMALL.block_dim)
    goal = torch.randn(2, SMALL.latent_dim)
    with torch.no_grad():
        rolled = model.rollout(latents, actions, past)
        costs = model.cost(latents, goal, actions, past)
        assert rolled.shape == (2, 3, 4, SMALL.latent_dim)
        for b in range(2):
            for s in range(3):
                frames, blocks = list(latents[b]), [*past[b], *actions[b, s]]
                for step in range(4):
                    window = torch.stack(frames[-SMALL.history :])[None]
                    seen = torch.stack(blocks[: context + step][-SMALL.history :])[None]
                    frames.append(model.predict(window, seen)[0, -1])
                torch.testing.assert_close(rolled[b, s], torch.stack(frames[context:]), atol=1e-5, rtol=1e-5)
                distance = (frames[-1] - goal[b]).square().sum()
                torch.testing.assert_close(costs[b, s], distance, atol=1e-4, rtol=1e-5)


def test_position_waves_tell_all_patches_apart_and_their_neighbours_least():
    side = 8
    waves = grid_waves(side, 24)
    distance = torch.cdist(waves, waves)
    assert torch.isfinite(waves).all()
    assert distance[~torch.eye(side * side, dtype=torch.bool)].min() > 0.1
    along = distance[0, :side]  # from the corner along a row
    assert along[1] == along[1:].min()
    torch.testing.assert_close(along, distance[0, ::side], msg="rows and columns are alike")
    assert not waves[0, 24:].any() and grid_waves(1, 6).shape == (1, 6)


def test_waves_are_where_training_starts_and_normal_the_default():
    waves = LeWM(SMALL, position_init="waves").encoder.embeddings.position_embeddings[0, 1:]
    expected = grid_waves(4, SMALL.encoder_dim)
    torch.testing.assert_close(waves / waves.abs().max(), expected / expected.abs().max())
    assert LeWM(SMALL).encoder.embeddings.position_embeddings.abs().max() < 0.1
    with pytest.raises(ValueError, match=r"position_init: expected one of .*'sincos'"):
        LeWM(SMALL, position_init="sincos")


def test_wrong_shapes_and_types_are_named():
    model = small_model()
    with pytest.raises(
        ValueError, match=r"pixels: expected \(\.\.\., 32, 32, 3\) for torch.uint8, got \(2, 16, 16, 3\)"
    ):
        model.encode(torch.zeros(2, 16, 16, 3, dtype=torch.uint8))
    with pytest.raises(
        TypeError, match=r"pixels: expected uint8 or a floating-point dtype, got torch\.int64"
    ):
        model.encode(torch.zeros(2, 32, 32, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"latents: expected \(B, 1\.\.3, 20\), got \(2, 4, 20\)"):
        model.predict(torch.zeros(2, 4, 20), torch.zeros(2, 4, 6))
    with pytest.raises(ValueError, match=r"actions: expected \(2, 3, 6\), got \(2, 3, 5\)"):
        model.predict(torch.zeros(2, 3, 20), torch.zeros(2, 3, 5))
    with pytest.raises(ValueError, match=r"past_actions: expected \(2, 1, 6\), got \(2, 0, 6\)"):
        model.rollout(torch.zeros(2, 2, 20), torch.zeros(2, 5, 4, 6))
    with pytest.raises(ValueError, match=r"latents: expected \(B, 1\.\.3, 20\), got \(2, 4, 20\)"):
        model.rollout(torch.zeros(2, 4, 20), torch.zeros(2, 5, 4, 6))
    for shape in ((2, 5, 0, 6), (2, 0, 4, 6)):
        message = rf"actions: expected at least 1 candidate and 1 block, got \({shape[0]}, {shape[1]}, {shape[2]}, 6\)"
        with pytest.raises(ValueError, match=message):
            model.rollout(torch.zeros(2, 1, 20), torch.zeros(shape))
        with pytest.raises(ValueError, match=message):
            model.cost(torch.zeros(2, 1, 20), torch.zeros(2, 20), torch.zeros(shape))
    with pytest.raises(ValueError, match=r"latents: expected \(B, 1\.\.3, 20\), got \(0, 1, 20\)"):
        model.rollout(torch.zeros(0, 1, 20), torch.zeros(0, 5, 4, 6))
    with pytest.raises(ValueError, match=r"goal: expected \(2, 20\), got \(1, 20\)"):
        model.cost(torch.zeros(2, 1, 20), torch.zeros(1, 20), torch.zeros(2, 5, 4, 6))
    with pytest.raises(ValueError, match="attention: expected one of"):
        LeWM(SMALL, attention="flash")
    with pytest.raises(ValueError, match=r"action_scaling.mean: expected 3 numbers, got 2"):
        LeWM(SMALL, action_scaling={"mean": [0, 0], "std": [1, 1]})


def test_batch_norm_is_torchs_without_a_group():
    torch.manual_seed(0)
    ours, theirs = BatchNorm(5), torch.nn.BatchNorm1d(5)
    for _ in range(3):
        x = torch.randn(7, 5) * 3 + 1
        torch.testing.assert_close(ours(x), theirs(x))
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor)


def test_calibration_takes_the_statistics_of_the_batches_without_dropout():
    model = small_model(dropout=0.5)
    batches = [small_batch(windows=5), small_batch(windows=7)]
    for parameter in model.predictor.parameters():
        parameter.data.mul_(3)  # an out-of-date average would show
    calibrate(model, batches)
    assert not any(module.training for module in model.modules())
    means, variances = [], []
    with torch.no_grad():
        for batch in batches:
            features = model.projector.net[0](model.encoder(batch["pixels"].flatten(0, 1)))
            means.append(features.mean(0))
            variances.append(features.var(0))
    norm = model.projector.net[1]
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(norm.running_var, torch.stack(variances).mean(0), atol=1e-5, rtol=1e-4)
    assert norm.momentum == 0.1
    first = model.pred_proj.net[1].running_var.clone()
    calibrate(model, batches)
    torch.testing.assert_close(
        model.pred_proj.net[1].running_var, first
    )  # dropout would differ between calls


def test_compiled_encoder_and_predictor_trace_without_breaks():
    model = small_model(dropout=0.0)
    batch = small_batch()
    latents = model.encode(batch["pixels"])
    for module, inputs in (
        (model.encoder, (batch["pixels"].flatten(0, 1),)),
        (model.predictor, (latents[:, :3], model.action_encoder(batch["action"][:, :3]))),
    ):
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*inputs), module(*inputs))
