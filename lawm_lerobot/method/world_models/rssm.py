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

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lawm_lerobot.method.configuration import RSSM_SIZES, RSSMConfig
from lawm_lerobot.method.kernels.recurrence import one_weight_gradient
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

# Blocks of the recurrent matrices, as in the paper.
BLOCKS = 8


class State(NamedTuple):
    """The model's state of N trajectories at one time; at all times, each part has a further dimension T after N.

    Args:
        deter: (N,deter), h_t.
        stoch: (N,groups*classes), s_t, a one-hot vector for each group.
        probs: (N,groups,classes), the distribution that s_t comes from.
    """

    deter: Tensor
    stoch: Tensor
    probs: Tensor


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

    def embed_latents(self, latents: Tensor) -> Tensor:
        """(B,H,Z) -> (B,H,deter), the latents' share of every step, which needs no recurrence."""
        return self.latent_in(latents)

    def forward(self, deter: Tensor, stoch: Tensor, latent: Tensor) -> Tensor:
        """h_k (N,deter), s_k (N,groups*classes), z_k (N,deter) from `embed_latents` -> h_{k+1} (N,deter)."""
        everything = torch.cat([self.deter_in(deter), self.stoch_in(stoch)], -1)  # (N,2*hidden)
        mixed = self.mix_block(deter).flatten(1) + self.mix_all(everything) + latent  # (N,deter)
        gates = self.gates(self.mix_norm(mixed)).float()  # (N,BLOCKS,3*deter/BLOCKS)
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

    def forward(self, deter: Tensor, observed: Tensor) -> Tensor:
        """h_t (N,deter), x_t (N,hidden) from `from_embedding` -> (N,groups*classes) logits."""
        return self.head(self.from_deter(deter) + observed)


def straight_through(probs: Tensor, noise: Tensor) -> Tensor:
    """(N,groups,classes) -> (N,groups*classes) one-hot, with the gradient of the probabilities.

    The class is argmax(probs / noise): a sample where the noise is exponential, the mode where it is one.
    """
    index = (probs.detach() / noise).argmax(-1, keepdim=True)  # (N,groups,1)
    one_hot = torch.zeros_like(probs).scatter_(-1, index, 1.0)
    return (one_hot + probs - probs.detach()).flatten(1)  # (N,groups*classes)


def draw_frames(valid: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Draws the `count` frames of each clip that stand for all: (B,n) bool -> their indices and weights (B,count).

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


def select_frames(values: Tensor, index: Tensor) -> Tensor:
    """(B,n,...), (B,count) indices -> (B,count,...)."""
    return values[torch.arange(len(index), device=index.device).unsqueeze(1), index]


def categorical_kl(probs: Tensor, other: Tensor) -> Tensor:
    """KL(probs || other) in nats, summed over the groups: (...,groups,classes) twice -> (...)."""
    return (probs * (probs.log() - other.log())).sum((-2, -1))


class RSSM(WorldModel):
    """The recurrent state-space model of a size in `RSSM_SIZES`."""

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

    def observe(self, frames: Tensor) -> Tensor:
        """(B,n,C,h,w) -> (B,n,hidden), the frames as the posterior takes them."""
        embedding = self.encoder(as_images(frames))  # (B*n,embedding)
        return self.posterior.from_embedding(embedding).unflatten(0, (len(frames), -1))  # (B,n,hidden)

    def first_state(self, observed: Tensor, noise: Tensor) -> State:
        """h_0 = 0 and s_0 of the posterior: x_0 (B,hidden) -> N states, the same for each B of them.

        The noise (N,groups,classes) is that of `straight_through`.
        """
        batch, rows = len(observed), len(noise)
        deter = torch.zeros(rows, self.deter, device=observed.device)  # (N,deter)
        probs = self.probabilities(self.posterior(deter[:batch], observed))  # (B,groups,classes)
        probs = probs.repeat(rows // batch, 1, 1)  # (N,groups,classes)
        return State(deter, straight_through(probs, noise), probs)

    def step(self, state: State, latent: Tensor, observed: Tensor | None, noise: Tensor) -> State:
        """h_{t+1} = f(h_t, s_t, z_t), and s_{t+1} of the posterior where x_{t+1} is observed, of the prior elsewhere.

        Args:
            state: The N states at time t.
            latent: (N,deter), z_t as `SequenceModel.embed_latents` gives it.
            observed: (B,hidden), x_{t+1} for the first B of the N trajectories; None if no trajectory sees it.
            noise: (N,groups,classes), see `straight_through`.
        """
        deter = self.sequence(state.deter, state.stoch, latent)  # (N,deter)
        if observed is None:
            logits = self.prior(deter)  # (N,stoch)
        else:
            counts = [len(observed), len(deter) - len(observed)]
            seeing, imagining = deter.split(counts)  # (B,deter), (N-B,deter)
            logits = torch.cat([self.posterior(seeing, observed), self.prior(imagining)])  # (N,stoch)
        probs = self.probabilities(logits)  # (N,groups,classes)
        return State(deter, straight_through(probs, noise), probs)

    def unroll(self, observed: Tensor, latents: Tensor, sample: bool = False) -> State:
        """The states at all times 0..H: (N,T,...).

        Args:
            observed: (B,n,hidden) from `observe`. With x_0 alone (n = 1) there are B trajectories, all open loop.
                With all T frames there are 2*B: those of the posterior, and after them those of the open loop. Both
                go through one recurrence, since products with twice the rows cost less than twice as many.
            latents: (B,H,Z).
            sample: The posterior samples its s_t; otherwise it takes the mode, as the open loop always does.
        """
        batch, horizon = latents.shape[:2]
        rows = batch if observed.shape[1] == 1 else 2 * batch
        latent = self.sequence.embed_latents(latents).repeat(rows // batch, 1, 1)  # (N,H,deter)
        noise = torch.ones(horizon + 1, rows, *self.shape, device=observed.device)  # (T,N,groups,classes)
        if sample:
            noise[:, :batch].exponential_()
        with one_weight_gradient(steps=horizon + 1):
            states = [self.first_state(observed[:, 0], noise[0])]
            for t in range(horizon):
                following = None if rows == batch else observed[:, t + 1]  # (B,hidden)
                states.append(self.step(states[-1], latent[:, t], following, noise[t + 1]))
        return State(*(torch.stack(part, 1) for part in zip(*states, strict=True)))

    def decode(self, deter: Tensor, stoch: Tensor) -> Tensor:
        """(B,n,deter), (B,n,stoch) -> (B,n,C,h,w) for any n."""
        states = torch.cat([deter, stoch], -1).flatten(0, 1)  # (B*n,deter+stoch)
        return self.decoder(states).unflatten(0, deter.shape[:2])  # (B,n,C,h,w)

    def forward(self, frames: Tensor, latents: Tensor, valid: Tensor) -> WorldModelOutput:
        self.check_shapes(frames, latents)
        config = self.config
        deter, stoch, probs = self.unroll(self.observe(frames), latents, sample=self.training)
        seen_deter, open_deter = deter.chunk(2)  # each (B,T,deter)
        seen_stoch, open_stoch = stoch.chunk(2)  # each (B,T,stoch)
        open_deter, open_stoch = open_deter[:, 1:], open_stoch[:, 1:]  # (B,H,deter), (B,H,stoch)

        # Pixels: squared error summed over a frame (the paper's L_pred). Decoding all frames would be 40% of a
        # training step, so it is some of each clip.
        count = config.decoded_frames if self.training and config.decoded_frames else frames.shape[1]
        seen = F.pad(valid, (1, 0), value=True)  # (B,T); x_0 is always valid
        seen_index, seen_weight = draw_frames(seen, count)  # (B,n)
        open_index, open_weight = draw_frames(valid, count)  # (B,m)
        targets = torch.cat(
            [select_frames(frames, seen_index), select_frames(frames, open_index + 1)], 1
        )  # (B,n+m,C,h,w)
        decoded = self.decode(
            torch.cat([select_frames(seen_deter, seen_index), select_frames(open_deter, open_index)], 1),
            torch.cat([select_frames(seen_stoch, seen_index), select_frames(open_stoch, open_index)], 1),
        )  # (B,n+m,C,h,w)
        errors = frame_errors(decoded, targets)  # (B,n+m)
        seen_errors, open_errors = errors.split([seen_index.shape[1], open_index.shape[1]], 1)  # (B,n), (B,m)
        reconstruction_mse = masked_mean(seen_errors, seen_weight)
        open_loop_mse = masked_mean(open_errors, open_weight)

        # KL balancing with free bits (the paper's L_dyn and L_rep). Clipping comes before the mean over time,
        # so that an easy transition cannot hide a hard one.
        prior = self.probabilities(self.prior(seen_deter[:, 1:]))  # (B,H,groups,classes)
        posterior = probs[: len(frames), 1:]  # (B,H,groups,classes)
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
        deter, stoch, _ = self.unroll(self.observe(first_frame.unsqueeze(1)), latents)
        return self.decode(deter[:, 1:], stoch[:, 1:])  # (B,H,C,h,w)

    def reconstruct(self, frames: Tensor, latents: Tensor) -> Tensor:
        self.check_shapes(frames, latents)
        deter, stoch, _ = self.unroll(self.observe(frames), latents, sample=self.training)
        return self.decode(deter[: len(frames)], stoch[: len(frames)])  # (B,T,C,h,w)
