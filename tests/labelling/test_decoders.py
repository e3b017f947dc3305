"""The decoders of `lawm-label-actions` and the judgement on them, on numbers made up on the spot."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lawm_lerobot.labelling.configuration import FINETUNED, INVERSE_MODEL, READOUT, InverseModelConfig
from lawm_lerobot.labelling.decoders import (
    Confidence,
    Decoded,
    Demonstration,
    FittedDecoder,
    HeldOut,
)
from lawm_lerobot.labelling.inverse_model import Trainer, fit_inverse_model
from lawm_lerobot.labelling.latent_readout import fit_latent_readout, latent_features
from lawm_lerobot.labelling.run import judge
from lawm_lerobot.method.inverse_dynamics import InverseDynamics
from lawm_lerobot.method.transitions import over_transitions
from lawm_lerobot.statistics.ridge import overall_r2


def test_confidence_is_the_variance_expected_to_be_explained():
    rng = np.random.default_rng(0)
    deviation = rng.uniform(0, 1, 4000)
    true = rng.normal(size=(4000, 2))
    decoded = true + deviation[:, None] * rng.normal(size=(4000, 2))
    episode = np.arange(4000) // 40
    confidence = Confidence(HeldOut(true, Decoded(decoded, deviation), episode, episode))
    found = confidence(np.array([0.05, 0.5, 0.95, 3.0]))
    np.testing.assert_allclose(found, [1.0, 0.75, 0.1, 0.0], atol=0.08)


def test_confidence_is_of_the_dimensions_that_count_in_r2():
    rng = np.random.default_rng(0)
    true = np.c_[rng.normal(size=(2000, 2)), np.full(2000, 0.1)]
    decoded = true + np.array([0.7, 0.7, 0.0]) * rng.normal(size=(2000, 3))
    episode = np.arange(2000) // 40
    held_out = HeldOut(true, Decoded(decoded, rng.uniform(0, 1, 2000)), episode, episode)
    assert held_out.r2 == pytest.approx(0.51, abs=0.03)
    assert Confidence(held_out)(held_out.decoded.deviation).mean() == pytest.approx(held_out.r2, abs=0.02)


def demonstrations_of_a_linear_map(count: int, length: int = 40) -> list[Demonstration]:
    """Frames of six bytes that tell two actions, but for a fifth of noise."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(6, 2))
    made = []
    for number in range(count):
        frames = rng.integers(0, 256, (length, 1, 1, 6))
        actions = (frames[:, 0, 0] - 128) / 74 @ weights + 0.8 * rng.normal(size=(length, 2))
        made.append(Demonstration(torch.from_numpy(frames.astype(np.uint8)), actions, number))
    return made


def bytes_of(frames: torch.Tensor) -> np.ndarray:
    return frames[:, 0, 0].numpy().astype(float)


def test_of_few_demonstrations_blocks_of_time_are_held_out():
    demonstrations = demonstrations_of_a_linear_map(2)
    fitted = fit_latent_readout(demonstrations, bytes_of, stride=2, folds=4, seed=0)
    held_out = fitted.held_out
    assert held_out.unit == "blocks of time" and np.bincount(held_out.part).tolist() == [10] * 8
    np.testing.assert_array_equal(held_out.episode, np.repeat([0, 1], 40))
    np.testing.assert_array_equal(held_out.true, np.concatenate([d.actions for d in demonstrations]))
    # The decoder's R2 on new recordings of the same kind.
    fresh = demonstrations_of_a_linear_map(60)[2:]
    true = np.concatenate([demo.actions for demo in fresh])
    decoded = np.concatenate([fitted.decode(demo.frames).actions for demo in fresh])
    real = overall_r2(true, decoded)
    assert real > 0.7
    low, high = held_out.r2_interval
    assert low < held_out.r2 < high and low < real < high and held_out.r2 == pytest.approx(real, abs=0.1)
    many = fit_latent_readout(
        demonstrations_of_a_linear_map(12), bytes_of, stride=2, folds=4, seed=0
    ).held_out
    assert many.unit == "demonstrations"
    assert np.diff(many.r2_interval) < high - low  # more is known of more


def judged(error: float, frames: int, name: str = READOUT) -> FittedDecoder:
    """A decoder whose decoded actions are the true ones and an error of so many standard deviations."""
    rng = np.random.default_rng(3)
    true = rng.normal(size=(frames, 2))
    decoded = Decoded(true + error * rng.normal(size=true.shape), np.ones(frames))
    episode = np.arange(frames) * 4 // frames
    return FittedDecoder(name, lambda _: decoded, HeldOut(true, decoded, episode, episode))


def test_the_best_is_chosen_and_the_control_where_nothing_can_judge():
    errors = {READOUT: 0.6, FINETUNED: 0.3, INVERSE_MODEL: 0.5}
    decoders = {name: judged(error, 400, name) for name, error in errors.items()}
    assert judge(decoders, [1, 2])[1].name == FINETUNED
    assert judge(decoders, [])[1].name == INVERSE_MODEL


def test_a_refusal_needs_evidence_and_a_doubt_is_said(caplog):
    unsure = judged(1.0, 8)
    assert unsure.held_out.r2_interval[0] < 0 < 0.1 < unsure.held_out.r2_interval[1]
    assert judge({READOUT: unsure}, [0, 1, 2, 3])[1].name == READOUT
    assert "too few to say" in caplog.text and "--labels.repo_id" in caplog.text
    caplog.clear()
    judge({READOUT: judged(0.5, 400)}, [0, 1, 2, 3])
    assert "too few" not in caplog.text
    with pytest.raises(ValueError, match=r"no better than their mean.*R2 -0\.\d+ \(95% -0\.\d+ to "):
        judge({READOUT: judged(1.1, 400)}, [0, 1, 2, 3])


def test_every_frame_has_the_latents_around_it():
    latents = np.arange(8.0)[:, None]  # z_t = t, of an episode of 10 frames at stride 2
    features = latent_features(latents, 10, 2)
    assert features.shape == (10, 5)
    assert features[4].tolist() == [2, 3, 4, 5, 6]
    assert features[0].tolist() == [0, 0, 0, 1, 2] and features[9].tolist() == [7, 7, 7, 7, 7]


def test_every_transition_is_seen_once_and_a_short_episode_stands_still():
    frames = torch.arange(7.0)[:, None, None, None]  # the frame t has the one pixel t

    def ends_of(clip: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        assert valid.shape == (1, clip.shape[1] - 1) and valid.all()
        return torch.cat([clip[:, :-1], clip[:, 1:]], 2).flatten(2)  # (1,H,2)

    for length, stride in ((7, 1), (7, 3), (4, 3)):
        expected = [[t, t + stride] for t in range(length - stride)]
        assert over_transitions(frames[:length], stride, ends_of).tolist() == expected
    assert over_transitions(frames[:2], 3, ends_of).tolist() == [[0, 1]]


def test_finetuned_inverse_dynamics_begin_with_the_convolutions_of_the_checkpoint():
    config = InverseModelConfig(size="test", stride=1, steps=1, eval_freq=1, batch_size=2)
    pretrained = InverseDynamics(8, 32, "test")
    rng = np.random.default_rng(0)
    demonstrations = [
        Demonstration(
            torch.from_numpy(rng.integers(0, 256, (12, 3, 32, 32), np.uint8)),
            rng.normal(size=(12, 2)),
            number,
        )
        for number in range(4)
    ]
    before = {name: tensor.clone() for name, tensor in pretrained.state_dict().items()}
    shape = {"demonstrations": demonstrations, "device": "cpu", "seed": 0}
    begun, fresh = (Trainer(config, **shape, pretrained=start).network for start in (pretrained, None))
    for name, tensor in begun.state_dict().items():
        # What pools a pair's map, and the head, are about latents.
        known = name.startswith(("frame_stages", "pair_stages"))
        assert torch.equal(tensor, (before if known else fresh.state_dict())[name]), name
        assert not known or not tensor.std() or not torch.equal(tensor, fresh.state_dict()[name]), name
    fitted = fit_inverse_model(demonstrations, config, 2, 0, "cpu", pretrained)
    plain = fit_inverse_model(demonstrations, config, 2, 0, "cpu")
    assert (fitted.name, plain.name) == (FINETUNED, INVERSE_MODEL)
    found, expected = (kind.decode(demonstrations[0].frames).actions for kind in (fitted, plain))
    assert not np.allclose(found, expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in pretrained.state_dict().items())
