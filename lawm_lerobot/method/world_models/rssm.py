r"""DreamerV3's recurrent state-space model (arXiv 2301.04104), driven by latent actions.

Symbols of the paper (its section on learning the world model):
    h_t  deterministic state, here `deter`       h_t = f(h_{t-1}, s_{t-1}, z_{t-1})   sequence model
    s_t  stochastic state, here `stoch`          s_t ~ q(s_t | h_t, x_t)              encoder, the posterior
                                                 s_t ~ p(s_t | h_t)                   dynamics, the prior
         (the paper writes z_t for it; z is the latent action here, in the place of the paper's action a_t)
    x_t  frame                                   x_t ~ p(x_t | h_t, s_t)              decoder

       x_0        x_1        x_2                     x_0
        |          |          |                       |
       s_0        s_1        s_2   posterior         s_0        s_1        s_2   open loop: s_t from the prior
        |  \      /|  \      /|                       |  \      /|  \      /|
       h_0=0 ->  h_1   ->   h_2                      h_0=0 ->  h_1   ->   h_2
             z_0        z_1                                z_0        z_1

Three departures, all because the model is conditioned on a clip's first frame: h_0 = 0 and x_0 is observed
through s_0; the KL terms run over the H transitions only, since x_0 is given and nothing has to predict it;
and an open-loop term trains the rollout that imagination uses. That rollout takes the mode of every s_t
instead of a sample, in training as in imagination, so it is what `imagine` returns that is trained. Reward and
continuation heads are left out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lawm_lerobot.method.configuration import RSSM_SIZES, RSSMConfig
from lawm_lerobot.method.kernels.recurrence import Unrolled
from lawm_lerobot.method.networks import (
    HEAD_SCALE,
    PIXELS,
    BlockLinear,
    ConvDecoder,
    ConvEncoder,
    Linear,
    NormedLinear,
    as_images,
    frame_errors,
    init_weights,
    masked_mean,
    prediction_metrics,
)
from lawm_lerobot.method.world_models.base import WorldModel, WorldModelOutput

BLOCKS = 8
"""Blocks of the recurrent matrices, as in the paper."""


class SequenceModel(nn.Module):
    """h_{k+1} = f(h_k, s_k, z_k): a GRU with block-diagonal recurrent weights and layer norm."""

    def __init__(self, deter: int, stoch: int, latent_dim: int, hidden: int):
        super().__init__()
        self.deter_in = NormedLinear(deter, hidden)
        self.stoch_in = NormedLinear(stoch, hidden)
        self.latent_in = nn.Sequential(NormedLinear(latent_dim, hidden), Linear(hidden, deter, bias=False))
        # Every block sees its own part of h and all of the embedded h, s and z.
        self.mix_block = BlockLinear(deter, deter, BLOCKS)
        self.mix_all = Linear(2 * hidden, deter, bias=False)
        self.mix_norm = nn.Sequential(nn.LayerNorm(deter), nn.SiLU())
        self.gates = BlockLinear(deter, 3 * deter, BLOCKS)

    def drive(self, latents: Tensor) -> Tensor:
        """(B,H,Z) -> (B,H,deter), the latents' share of every step, which needs no recurrence."""
        return self.latent_in(latents)

    def forward(self, deter: Tensor, stoch: Tensor, drive: Tensor, run: Unrolled) -> Tensor:
        """(N,deter), (N,groups*classes), (N,deter) -> (N,deter), one step."""
        everything = torch.cat([run(self.deter_in, deter), run(self.stoch_in, stoch)], -1)  # (N,2*hidden)
        mixed = run(self.mix_block, deter).flatten(1) + run(self.mix_all, everything) + drive  # (N,deter)
        gates = run(self.gates, self.mix_norm(mixed)).float()  # (N,BLOCKS,3*deter/BLOCKS)
        reset, candidate, update = (gate.flatten(1) for gate in gates.chunk(3, -1))  # each (N,deter)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        update = torch.sigmoid(update - 1)  # The state changes slowly at first.
        return torch.lerp(deter, candidate, update)


class Posterior(nn.Module):
    """q(s_t | h_t, x_t). The frames' share is computed for all of them at once, outside the recurrence."""

    def __init__(self, deter: int, embedding: int, hidden: int, logits: int):
        super().__init__()
        self.from_deter = Linear(deter, hidden, bias=False)
        self.from_embedding = Linear(embedding, hidden, bias=False)
        self.head = nn.Sequential(nn.LayerNorm(hidden), nn.SiLU(), Linear(hidden, logits))

    def forward(self, deter: Tensor, observed: Tensor, run: Unrolled) -> Tensor:
        """(N,deter), (N,hidden) from `from_embedding` -> (N,groups*classes) logits."""
        return run(self.head, run(self.from_deter, deter) + observed)


def straight_through(probs: Tensor, noise: Tensor) -> Tensor:
    """(N,groups,classes) -> (N,groups*classes) one-hot, with the gradient of the probabilities.

    The class is argmax(probs / noise): a sample where the noise is exponential, the mode where it is one.
    """
    index = (probs.detach() / noise).argmax(-1, keepdim=True)  # (N,groups,1)
    one_hot = torch.zeros_like(probs).scatter_(-1, index, 1.0)
    return (one_hot + probs - probs.detach()).flatten(1)  # (N,groups*classes)


def draw_frames(valid: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Which `count` frames of each clip stand for all of them: (B,n) bool -> their indices and weights (B,count).

    The last valid frame is always drawn, since it alone depends on every latent; the others at random, without
    replacement. A weight says how many valid frames the drawn one stands for, none if it is padding, so a weighted sum
    over the drawn frames has the sum over the valid ones as its expectation.
    """
    frames = valid.shape[1]
    if count >= frames:
        return torch.arange(frames, device=valid.device).expand_as(valid), valid.float()
    length = valid.sum(1, keepdim=True)  # (B,1); padding is at the end
    place = torch.arange(frames, device=valid.device)  # (n)
    # In random order, but the last valid frame first and the padding after everything else.
    turn = torch.rand(valid.shape, device=valid.device) + (place >= length)  # (B,n)
    index = turn.masked_fill(place == length - 1, -1.0).argsort(1)[:, :count]  # (B,count)
    others = (length - 1) / (length - 1).clamp(1, count - 1)  # (B,1)
    weight = torch.cat([torch.ones_like(others), others.expand(-1, count - 1)], 1)  # (B,count)
    return index, weight * valid.gather(1, index)


def at(index: Tensor, values: Tensor) -> Tensor:
    """(B,count) indices, (B,n,...) -> (B,count,...)."""
    return values[torch.arange(len(index), device=index.device).unsqueeze(1), index]


def categorical_kl(probs: Tensor, other: Tensor) -> Tensor:
    """KL(probs || other) in nats, summed over the groups: (...,groups,classes) twice -> (...)."""
    return (probs * (probs.log() - other.log())).sum((-2, -1))


class RSSM(WorldModel):
    def __init__(self, config: RSSMConfig, latent_dim: int):
        super().__init__()
        size = RSSM_SIZES[config.size]
        self.config = config
        self.latent_dim = latent_dim
        self.image_size = config.image_size
        self.deter = size.deter
        self.shape = (size.groups, size.classes)
        stoch = size.groups * size.classes
        self.encoder = ConvEncoder(size.depth, config.image_size)
        self.sequence = SequenceModel(size.deter, stoch, latent_dim, size.hidden)
        self.posterior = Posterior(size.deter, self.encoder.features, size.hidden, stoch)
        self.prior = nn.Sequential(
            NormedLinear(size.deter, size.hidden),
            NormedLinear(size.hidden, size.hidden),
            Linear(size.hidden, stoch),
        )
        self.decoder = ConvDecoder(size.deter + stoch, size.depth, config.image_size)
        self.apply(init_weights)
        with torch.no_grad():
            self.decoder.head.weight *= HEAD_SCALE

    def probabilities(self, logits: Tensor) -> Tensor:
        """(...,groups*classes) -> (...,groups,classes) in float32, mixed with 1% uniform (paper: unimix)."""
        probs = F.softmax(logits.float().unflatten(-1, self.shape), -1)  # (...,groups,classes)
        return (1 - self.config.unimix) * probs + self.config.unimix / self.shape[-1]

    def rollout(self, frames: Tensor, latents: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The posterior and the open-loop trajectory, side by side in one recurrence over 2*B rows.

        Returns the posterior's deter (B,T,deter), stoch (B,T,stoch) and probabilities (B,T,groups,classes),
        and the open loop's deter (B,H,deter) and stoch (B,H,stoch).
        """
        batch, horizon = latents.shape[:2]
        embedding = self.encoder(as_images(frames))  # (B*T,embedding)
        observed = self.posterior.from_embedding(embedding).unflatten(0, (batch, -1))  # (B,T,hidden)
        drive = self.sequence.drive(latents).repeat(2, 1, 1)  # (2*B,H,deter)
        rows = 2 * batch
        noise = torch.ones(horizon + 1, rows, *self.shape, device=frames.device)  # (T,2*B,groups,classes)
        if self.training:  # The posterior samples; the open loop takes the mode, as imagination does.
            noise[:, :batch].exponential_()

        run = Unrolled(horizon + 1)
        deter = torch.zeros(rows, self.deter, device=frames.device)  # (2*B,deter)
        probs = self.probabilities(self.posterior(deter[:batch], observed[:, 0], run))  # (B,groups,classes)
        stoch = straight_through(probs.repeat(2, 1, 1), noise[0])  # (2*B,stoch)
        deters, stochs, posteriors = [deter], [stoch], [probs]
        for k in range(horizon):
            deter = self.sequence(deter, stoch, drive[:, k], run)  # (2*B,deter)
            seen, imagined = deter.chunk(2)  # each (B,deter)
            observed_logits = self.posterior(seen, observed[:, k + 1], run)  # (B,stoch)
            logits = torch.cat([observed_logits, run(self.prior, imagined)])  # (2*B,stoch)
            probs = self.probabilities(logits)  # (2*B,groups,classes)
            stoch = straight_through(probs, noise[k + 1])  # (2*B,stoch)
            deters.append(deter)
            stochs.append(stoch)
            posteriors.append(probs[:batch])

        seen_deter, open_deter = torch.stack(deters, 1).chunk(2)  # each (B,T,deter)
        seen_stoch, open_stoch = torch.stack(stochs, 1).chunk(2)  # each (B,T,stoch)
        return seen_deter, seen_stoch, torch.stack(posteriors, 1), open_deter[:, 1:], open_stoch[:, 1:]

    def decode(self, deter: Tensor, stoch: Tensor) -> Tensor:
        """(B,n,deter), (B,n,stoch) -> (B,n,C,h,w) for any n."""
        states = torch.cat([deter, stoch], -1).flatten(0, 1)  # (B*n,deter+stoch)
        return self.decoder(states).unflatten(0, deter.shape[:2])  # (B,n,C,h,w)

    def forward(self, frames: Tensor, latents: Tensor, valid: Tensor) -> WorldModelOutput:
        self.check_shapes(frames, latents)
        config = self.config
        seen_deter, seen_stoch, posterior, open_deter, open_stoch = self.rollout(frames, latents)

        # Pixels: squared error summed over a frame (the paper's L_pred). Decoding all frames would be 40% of a
        # training step, so it is some of each clip.
        count = config.decoded_frames if self.training and config.decoded_frames else frames.shape[1]
        seen = F.pad(valid, (1, 0), value=True)  # (B,T); x_0 is always valid
        seen_index, seen_weight = draw_frames(seen, count)  # (B,n)
        open_index, open_weight = draw_frames(valid, count)  # (B,m)
        targets = torch.cat([at(seen_index, frames), at(open_index + 1, frames)], 1)  # (B,n+m,C,h,w)
        decoded = self.decode(
            torch.cat([at(seen_index, seen_deter), at(open_index, open_deter)], 1),
            torch.cat([at(seen_index, seen_stoch), at(open_index, open_stoch)], 1),
        )  # (B,n+m,C,h,w)
        errors = frame_errors(decoded, targets)  # (B,n+m)
        seen_errors, open_errors = errors.split([seen_index.shape[1], open_index.shape[1]], 1)  # (B,n), (B,m)
        reconstruction_mse = masked_mean(seen_errors, seen_weight)
        open_loop_mse = masked_mean(open_errors, open_weight)

        # KL balancing with free bits (the paper's L_dyn and L_rep). Clipping comes before the mean over time,
        # so that an easy transition cannot hide a hard one.
        prior = self.probabilities(self.prior(seen_deter[:, 1:]))  # (B,H,groups,classes)
        posterior = posterior[:, 1:]  # (B,H,groups,classes)
        dynamics = categorical_kl(posterior.detach(), prior)  # (B,H)
        representation = categorical_kl(posterior, prior.detach())  # (B,H)
        dynamics_loss = masked_mean(dynamics.clamp_min(config.free_bits), valid)
        representation_loss = masked_mean(representation.clamp_min(config.free_bits), valid)

        loss = config.loss_weight * (
            PIXELS * (reconstruction_mse + config.open_loop_weight * open_loop_mse)
            + config.dynamics_weight * dynamics_loss
            + config.representation_weight * representation_loss
        )
        metrics = {
            "loss": loss.detach(),
            "reconstruction_mse": reconstruction_mse.detach(),
            "kl": masked_mean(dynamics.detach(), valid),
            **prediction_metrics(open_errors, frames[:, 0], targets[:, seen_index.shape[1] :], open_weight),
        }
        return WorldModelOutput(loss, metrics)

    def imagine(self, first_frame: Tensor, latents: Tensor) -> Tensor:
        embedding = self.encoder(as_images(first_frame.unsqueeze(1)))  # (B,embedding)
        drive = self.sequence.drive(latents)  # (B,H,deter)
        run = Unrolled(latents.shape[1] + 1)
        deter = torch.zeros(len(latents), self.deter, device=latents.device)  # (B,deter)
        probs = self.probabilities(self.posterior(deter, self.posterior.from_embedding(embedding), run))
        stoch = straight_through(probs, torch.ones_like(probs))  # (B,stoch)
        deters, stochs = [], []
        for k in range(latents.shape[1]):
            deter = self.sequence(deter, stoch, drive[:, k], run)  # (B,deter)
            probs = self.probabilities(run(self.prior, deter))  # (B,groups,classes)
            stoch = straight_through(probs, torch.ones_like(probs))  # (B,stoch)
            deters.append(deter)
            stochs.append(stoch)
        return self.decode(torch.stack(deters, 1), torch.stack(stochs, 1))  # (B,H,C,h,w)

    def reconstruct(self, frames: Tensor, latents: Tensor) -> Tensor:
        self.check_shapes(frames, latents)
        deter, stoch, *_ = self.rollout(frames, latents)
        return self.decode(deter, stoch)  # (B,T,C,h,w)
