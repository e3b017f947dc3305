"""Latents of true actions: one world model and one decoder for them and for the inferred ones."""

from collections.abc import Sequence

import pytest
import torch
from helpers.moving_squares import SIDE, build, moving_squares
from helpers.toy_policy import pretraining_loss
from torch import Tensor, nn

from lawm_lerobot.method.action_latents import ActionEncoder
from lawm_lerobot.method.clip import Clip
from lawm_lerobot.method.configuration import InverseDynamicsConfig
from lawm_lerobot.method.latent_action import LatentActionConfig
from lawm_lerobot.method.objective import InferredLatents, LatentActionPretraining
from lawm_lerobot.method.readout import ActionReadout, ActionTargets, LabelBatch

Z, H, STRIDE, B, L = 2, 3, 2, 2, 3
DIMS = [2, 3]


def make(grounding: float = 1.0, readout: float = 1.0, **fields) -> LatentActionPretraining:
    torch.manual_seed(0)
    return LatentActionPretraining(
        LatentActionConfig(dim=Z, horizon=H, stride=STRIDE, **{"noise": 0, "codes": 2, **fields}),
        build("recurrent"),
        InverseDynamicsConfig(size="test", random_shift=0).build(Z, SIDE),
        ActionReadout(Z, STRIDE, DIMS),
        readout,
        ActionEncoder(Z, STRIDE, DIMS),
        grounding,
    )


def batch(heads: Sequence[int] = (0,)) -> tuple[Clip, LabelBatch, Clip]:
    """B clips of a corpus, L labelled ones of one embodiment, and if asked for one of the corpus's own of another."""
    torch.manual_seed(1)
    frames, _, valid = moving_squares(batch=B + L)
    valid[-1, 1:] = False
    rows = {0: torch.arange(B, B + L), 1: torch.tensor([1])}
    targets = [
        ActionTargets(head, rows[head], torch.randn(len(rows[head]), H, STRIDE, DIMS[head])) for head in heads
    ]
    clip, labels = Clip(frames[:B], valid[:B]), LabelBatch(targets, frames[B:], valid[B:])
    return clip, labels, clip.followed_by(Clip(labels.frames, labels.valid))


def norms(module: nn.Module) -> dict[str, float]:
    return {name: 0.0 if p.grad is None else float(p.grad.norm()) for name, p in module.named_parameters()}


def test_prediction_and_decoding_train_the_encoder_of_the_embodiment_at_hand():
    for readout in (0.0, 1.0):
        method = make(readout=readout)
        _, labels, clips = batch()
        loss, _ = method.grounding_loss(clips, labels)
        loss.backward()
        assert all(norms(method.action_encoder.heads[0]).values())  # by the prediction alone too
        assert not any(norms(method.action_encoder.heads[1]).values())
        assert all(norms(method.world_model).values())  # the one of the inferred latents
        assert bool(norms(method.readout)["heads.0.weight"]) == (readout > 0)  # the one decoder
        assert not any(norms(method.inverse_dynamics).values())


def test_both_kinds_of_latents_drive_one_world_model_and_one_decoder():
    """Where the encoder says what was inferred, the losses of both kinds are the same."""
    method = make()
    _, labels, clips = batch()
    z = method.infer_latents(clips.frames, clips.valid)
    method.action_encoder.forward = lambda actions, head: z[labels.rows]  # type: ignore[method-assign]
    step = InferredLatents(clips, clips, labels, z, z)
    assert float(method.option_health(step)["action_latent_ratio"]) == pytest.approx(1, abs=1e-5)
    grounding, metrics = method.grounding_loss(clips, labels)
    world = method.world_model_loss(Clip(labels.frames, labels.valid), z[labels.rows]).loss
    decoded, _ = method.readout_loss(z, clips.valid, labels)
    torch.testing.assert_close(metrics["action_world_model_loss"], world.detach())
    torch.testing.assert_close(grounding, world + decoded)


def test_the_frames_are_those_of_the_actions():
    method = make()
    _, labels, clips = batch()
    before, _ = method.grounding_loss(clips, labels)
    other = clips.frames.clone()
    other[:B] = torch.rand_like(other[:B])  # clips without labels count nowhere
    same, _ = method.grounding_loss(Clip(other, clips.valid), labels)
    torch.testing.assert_close(before, same)
    labels.targets[0].actions = labels.targets[0].actions.flip(0)
    changed, _ = method.grounding_loss(clips, labels)
    assert (changed - before).abs() > 1e-4


def test_padded_actions_count_nowhere():
    method = make()
    _, labels, clips = batch()
    before, _ = method.grounding_loss(clips, labels)
    labels.targets[0].actions[-1, 1:] += 100
    after, _ = method.grounding_loss(clips, labels)
    torch.testing.assert_close(before, after)
    latents = method.action_latents(clips, labels)
    assert (latents[~clips.valid] == 0).all()


@pytest.mark.parametrize("quantizer", ["vq", "fsq"])
def test_quantised_they_are_put_together_from_the_same_codes(quantizer):
    method = make(quantizer=quantizer)
    _, labels, clips = batch((0, 1))
    known = {name: value.clone() for name, value in method.quantizer.named_buffers()}
    latents = method.action_latents(clips, labels)
    numbers = method.quantizer.codebook if quantizer == "vq" else torch.linspace(-1, 1, 5)
    assert torch.isin(latents[labels.rows], torch.cat([numbers.flatten(), torch.zeros(1)])).all()
    assert all(torch.equal(value, known[name]) for name, value in method.quantizer.named_buffers())
    method.grounding_loss(clips, labels)[0].backward()
    assert all(norms(method.action_encoder.heads[1]).values())


def test_labelled_clips_drive_the_world_model_by_both_kinds_of_latents(monkeypatch):
    method = make()
    clip, labels, clips = batch((0, 1))
    driven: list[Tensor] = []
    real = method.world_model.forward
    monkeypatch.setattr(method.world_model, "forward", lambda *args: driven.append(args[0]) or real(*args))
    loss, metrics = pretraining_loss(method, None, clip, labels)
    assert [len(frames) for frames in driven] == [B + L, L + 1]
    torch.testing.assert_close(driven[1], clips.frames[labels.rows])
    assert {"action_world_model_loss", "readout_loss"} <= metrics.keys()
    loss.backward()
    assert all(value for name, value in norms(method).items() if name != "inverse_dynamics.head.1.bias")


def test_metrics_of_no_label_are_missing_and_not_perfect():
    method = make()
    clip, labels, clips = batch()
    z = method.infer_latents(clips.frames, clips.valid)
    nobody = LabelBatch([], labels.frames, labels.valid)

    def found(these: LabelBatch) -> list[float]:
        _, metrics = method.grounding_loss(clips, these)
        metrics |= method.option_health(InferredLatents(clip, clips, these, z, z))
        return [float(metrics[name]) for name in ("action_world_model_loss", "action_latent_ratio")]

    assert all(value != value for value in found(nobody))
    known = found(labels)
    assert all(value > 0 for value in known)
    assert found(nobody) == known


def test_actions_are_standardised_before_they_are_encoded():
    method = make()
    _, labels, clips = batch()
    (target,) = labels.targets
    before = method.action_latents(clips, labels)
    mean, std = torch.tensor([5.0, -3.0]), torch.tensor([10.0, 0.1])
    method.readout.set_statistics(0, mean, std)
    target.actions = target.actions * std + mean
    torch.testing.assert_close(method.action_latents(clips, labels), before, rtol=1e-3, atol=1e-4)


def test_an_action_twice_as_large_is_another_latent():
    encoder = ActionEncoder(Z, STRIDE, DIMS)
    actions = torch.randn(4, H, STRIDE * DIMS[0])
    small, large = encoder(actions, 0), encoder(2 * actions, 0)
    assert ((large - small).norm(dim=-1) > 0.1 * small.norm(dim=-1)).all()
