"""Discrete latents: their codes, the gradient past them, and codes that nobody chooses."""

import pytest
import torch
from draccus.utils import ParsingError
from helpers.moving_squares import SIDE, build, moving_squares
from helpers.toy_policy import ToyPolicy, pretraining_loss

from lawm_lerobot.method.clip import Clip
from lawm_lerobot.method.configuration import InverseDynamicsConfig
from lawm_lerobot.method.latent_action import LatentActionConfig
from lawm_lerobot.method.objective import InferredLatents, LatentActionPretraining
from lawm_lerobot.method.quantizers import FiniteScalarQuantizer, VectorQuantizer, build_quantizer

Z, H = 2, 3


def config(quantizer: str, **fields) -> LatentActionConfig:
    return LatentActionConfig(dim=Z, horizon=H, quantizer=quantizer, **{"codes": 2, **fields})


def make(quantizer: str, idm: str = "network", **fields) -> tuple[LatentActionPretraining, ToyPolicy, Clip]:
    inverse_dynamics = InverseDynamicsConfig(type=idm, size="test").build(Z, SIDE)
    method = LatentActionPretraining(config(quantizer, **fields), build("recurrent"), inverse_dynamics)
    frames, _, valid = moving_squares()
    return method, ToyPolicy(SIDE, H, Z), Clip(frames, valid)


def latents(batch: int = 64, dim: int = Z) -> tuple[torch.Tensor, torch.Tensor]:
    valid = torch.ones(batch, H, dtype=torch.bool)
    valid[::2, 1:] = False
    return torch.randn(batch, H, dim), valid


@pytest.mark.parametrize("quantizer", ["vq", "fsq"])
def test_latents_are_codes_and_quantising_them_again_changes_nothing(quantizer):
    module = build_quantizer(config(quantizer)).eval()
    z, valid = latents()
    quantised = module(z, valid)
    assert quantised.shape == z.shape and (quantised[~valid] == 0).all()
    assert len(quantised[valid].unique(dim=0)) <= (8**2 if quantizer == "vq" else 5**2)
    codes = module.codes(quantised)
    assert codes.shape == (64, H, 2) and codes.min() >= 0 and (codes < torch.tensor(module.sizes)).all()
    if quantizer == "vq":
        torch.testing.assert_close(quantised[valid], module.codebook[codes[valid]].flatten(1))
        assert torch.equal(codes[valid], module.codes(z)[valid])


def test_a_part_takes_the_nearest_code_and_all_places_choose_from_the_same():
    module = VectorQuantizer(4, 2, 3).eval()
    codebook = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    module.total.copy_(codebook / 3)
    z = torch.tensor([[[0.9, 0.2, 0.1, 0.8]]])
    quantised = module(z, torch.ones(1, 1, dtype=torch.bool))
    torch.testing.assert_close(quantised, torch.tensor([[[1.0, 0.0, 0.0, 1.0]]]))


@pytest.mark.parametrize("count", [3, 4, 5, 8])
def test_levels_are_evenly_spaced_and_all_in_reach(count):
    module = FiniteScalarQuantizer([count] * Z)
    z = torch.linspace(-6, 6, 999).view(-1, 1, 1).expand(-1, 1, Z)
    quantised = module(z, torch.ones(999, 1, dtype=torch.bool))
    levels = quantised[..., 0].unique()
    torch.testing.assert_close(levels, torch.arange(-(count // 2), (count + 1) // 2) / (count // 2))
    assert module.codes(quantised)[..., 0].unique().tolist() == list(range(count))
    assert (quantised.diff(dim=0) >= 0).all()
    assert module(torch.zeros(1, 1, Z), torch.ones(1, 1, dtype=torch.bool)).abs().max() == 0


@pytest.mark.parametrize("quantizer", ["vq", "fsq"])
def test_the_gradient_passes_straight_through(quantizer):
    module = build_quantizer(config(quantizer))
    z, valid = latents()
    z.requires_grad_()
    (module(z, valid) * 3).sum().backward()
    assert (z.grad[valid] > 0).float().mean() > 0.99  # of the outer levels nearly nothing is left
    assert (z.grad[~valid] == 0).all()
    if quantizer == "vq":
        torch.testing.assert_close(z.grad[valid], torch.full_like(z.grad[valid], 3.0))


@pytest.mark.parametrize("quantizer", ["vq", "fsq"])
@pytest.mark.parametrize("idm", ["network", "principal_components"])
def test_the_world_model_and_the_commitment_train_the_inverse_dynamics(quantizer, idm):
    method, policy, clip = make(quantizer, idm, noise=0)
    loss, _ = pretraining_loss(method, policy, clip)
    loss.backward()
    gradients = [p.grad for p in method.inverse_dynamics.parameters()]
    assert all(g is not None for g in gradients) and bool(gradients) == (idm == "network")
    assert all(p.grad is not None and p.grad.norm() > 0 for p in policy.parameters())
    # What everybody infers, the policy's targets included, are codes.
    method.eval()
    z = method.infer_latents(clip.frames, clip.valid)
    targets = method.train().imitation_targets(clip.frames, clip.valid, z)
    numbers = method.quantizer.codebook if quantizer == "vq" else torch.linspace(-1, 1, 5).unsqueeze(1)
    for found in (z, targets):
        assert torch.isin(found, numbers).all()


def test_the_commitment_pulls_latents_to_their_codes_and_nothing_to_the_latents():
    module = VectorQuantizer(Z, 1, 8, commitment=0.5)
    z, valid = latents()
    z.requires_grad_()
    quantised = module(z, valid, track=False)
    loss = module.loss(z, quantised, valid)
    expected = (z - quantised)[valid].square().mean() / 2
    torch.testing.assert_close(loss, expected.detach())
    loss.backward()
    torch.testing.assert_close(z.grad[valid], ((z - quantised) / 2 / valid.sum())[valid].detach())
    assert (z.grad[~valid] == 0).all()
    assert FiniteScalarQuantizer([5] * Z).loss(z, z, valid) == 0
    method, _, clip = make("vq")
    continuous = method.continuous_latents(clip.frames, clip.valid)
    z = method.quantised(continuous, clip.valid)
    added, _ = method.option_losses(InferredLatents(clip, clip, None, continuous, z))
    assert added == method.quantizer.loss(continuous, z, clip.valid) > 0


def test_a_padded_latent_moves_no_code_and_counts_in_no_metric():
    z, valid = latents()
    found = []
    for padding in (0.0, 1e4):
        torch.manual_seed(0)
        module = VectorQuantizer(Z, 2, 8)
        module.share[4:] = 0.0  # dead ones come back where a part is that counts
        quantised = module(torch.where(valid[..., None], z, padding), valid)
        loss = module.loss(torch.where(valid[..., None], z, padding), quantised, valid)
        found.append([module.codebook, loss, *module.usage(quantised, valid).values()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    usage, alone = module.usage(quantised, valid), quantised[valid].unsqueeze(1)  # (n,1,Z)
    assert usage == module.usage(alone, torch.ones(alone.shape[:2], dtype=torch.bool))
    before = module.codebook.clone()
    module(z, torch.zeros_like(valid))  # a batch without a single transition
    assert torch.equal(module.codebook, before)


def test_codes_follow_what_chooses_them_and_only_in_training():
    module = VectorQuantizer(1, 1, 2)
    module.total.copy_(torch.tensor([[-1.0], [1.0]]) / 2)
    z = torch.tensor([-3.0, 2.0]).view(2, 1, 1).repeat(8, 1, 1)
    valid = torch.ones(16, 1, dtype=torch.bool)
    module.eval()(z, valid)
    module.train()(z, valid, track=False)
    torch.testing.assert_close(module.codebook.flatten(), torch.tensor([-1.0, 1.0]))
    for _ in range(500):
        module(z, valid)
    torch.testing.assert_close(module.codebook.flatten(), torch.tensor([-3.0, 2.0]), atol=0.1, rtol=0)


def test_dead_codes_come_back_to_life():
    module = VectorQuantizer(Z, 2, 8)
    with torch.no_grad():
        module.total[1:] += 100  # Out of reach of every latent.
    z, valid = latents(dim=2)
    assert module.usage(module.eval()(z, valid), valid)["codes_used"] == 1 / 8
    module.train()
    for _ in range(600):
        quantised = module(torch.randn_like(z), valid)
    usage = module.usage(quantised, valid)
    assert usage["codes_used"] == 1 and usage["code_perplexity"] > 4


def test_usage_tells_a_constant_from_all_codes():
    for module in (VectorQuantizer(Z, 2, 8), FiniteScalarQuantizer([5, 3])):
        module.eval()
        valid = torch.ones(512, 1, dtype=torch.bool)
        constant = module(torch.zeros(512, 1, Z), valid)
        assert module.usage(constant, valid)["code_perplexity"] == pytest.approx(1, abs=1e-5)
        lively = module.usage(module(2 * torch.randn(512, 1, Z), valid), valid)
        assert lively["codes_used"] == 1 and lively["code_perplexity"] > 3
    both = FiniteScalarQuantizer([5, 3]).usage(constant, valid)
    assert both["codes_used"] == pytest.approx(2 / 8)


def test_the_health_of_codes_is_that_of_the_inferred_latents():
    method, _, clip = make("vq")
    continuous = method.continuous_latents(clip.frames, clip.valid)
    z = method.quantised(continuous, clip.valid)
    measured = method.option_health(InferredLatents(clip, clip, None, continuous, z))
    assert measured.keys() == {"code_perplexity", "codes_used"}
    assert measured["codes_used"] == len(method.quantizer.codes(z).unique()) / 8
    off, *_ = make("none")
    assert off.option_health(InferredLatents(clip, clip, None, continuous, continuous)) == {}
    assert not [
        name for name in off.state_dict() if name.startswith(("quantizer", "proprio", "action_encoder"))
    ]


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"quantizer": "rvq"}, "quantizer is 'rvq', expected one of none, vq, fsq"),
        ({"quantizer": "vq", "codes": 3}, "dim is 8, expected a multiple of the 3 codes"),
        ({"quantizer": "vq", "codebook_size": 1}, "codebook_size is 1, expected at least 2"),
        ({"quantizer": "fsq", "levels": [2]}, r"levels is \[2\].*at least 3"),
        ({"quantizer": "fsq", "levels": [5, 5]}, r"levels is \[5, 5\].*dim=8"),
        ({"quantizer": "fsq", "levels": []}, r"levels is \[\]"),
        ({"quantizer": "vq", "source": "policy"}, "no inverse dynamics"),
        ({"proprio_weight": float("nan")}, "proprio_weight is nan, expected at least 0"),
        ({"proprio_weight": 1.0, "source": "policy"}, "no inverse dynamics"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(fields, found):
    with pytest.raises(ParsingError, match=found) as error:
        LatentActionConfig(**fields)
    assert "--policy.latent_action." in str(error.value) and ". " not in str(error.value)
