"""Configuration of the world models and of the inverse dynamics; `build` imports the networks.

Sizes are named by their counted parameters, at the default image size and an 8-dimensional latent.
"""

import abc
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import draccus

# Raised for a value out of range. The text of a ValueError would be lost on the command line: draccus puts
# "Couldn't instantiate class" in its place.
from draccus.utils import ParsingError

if TYPE_CHECKING:
    from lawm_lerobot.method.inverse_dynamics import InverseDynamics
    from lawm_lerobot.method.principal_components import PrincipalComponents
    from lawm_lerobot.method.world_models.base import WorldModel

# Powers of two, so that strided convolutions end on a 4x4 map.
IMAGE_SIZES = (32, 64, 128, 256)


@dataclass(frozen=True)
class RSSMSize:
    """Widths of DreamerV3's recurrent state-space model (arXiv 2301.04104, the table of model sizes).

    Args:
        deter: Units of the deterministic state h_t.
        hidden: Units of the layers around it.
        groups: Categorical variables in the stochastic state s_t.
        classes: Classes of each of them.
        depth: Channels of the first convolution; they double at every further one, up to 8 times.
    """

    deter: int
    hidden: int
    groups: int
    classes: int
    depth: int


RSSM_SIZES = {
    "test": RSSMSize(deter=32, hidden=16, groups=8, classes=8, depth=8),
    "1m": RSSMSize(deter=512, hidden=96, groups=32, classes=4, depth=5),
    "3m": RSSMSize(deter=1024, hidden=128, groups=32, classes=8, depth=8),
    "12m": RSSMSize(deter=2048, hidden=256, groups=32, classes=16, depth=16),
    "27m": RSSMSize(deter=3072, hidden=384, groups=32, classes=24, depth=24),
    "47m": RSSMSize(deter=4096, hidden=512, groups=32, classes=32, depth=32),
    "106m": RSSMSize(deter=6144, hidden=768, groups=32, classes=48, depth=48),
}


@dataclass(frozen=True)
class Size:
    """Widths of the recurrent world model, or of the inverse dynamics.

    Args:
        hidden: Units of the recurrent state, or of the features of one transition.
        depth: Channels of the first convolution; they double at every further one, up to 8 times.
    """

    hidden: int
    depth: int


RECURRENT_SIZES = {"test": Size(32, 8), "2m": Size(256, 16), "8m": Size(512, 32), "17m": Size(768, 48)}
INVERSE_DYNAMICS_SIZES = {"test": Size(32, 8), "1m": Size(256, 16), "3m": Size(384, 32)}


def _check_choice(name: str, found: object, expected: Collection, flag: str) -> None:
    if found not in expected:
        options = ", ".join(str(option) for option in expected)
        raise ParsingError(f"{name} is {found!r} but must be one of {options}: change `{flag}`.")


def _check_not_negative(name: str, found: float, flag: str) -> None:
    if not found >= 0:  # Written so that NaN is refused too.
        raise ParsingError(f"{name} is {found!r} but must not be negative: change `{flag}`.")


@dataclass
class WorldModelConfig(draccus.ChoiceRegistry, abc.ABC):
    """The configuration that the world models share; `type` on the command line chooses one of them.

    draccus ignores the instance a field has as its default once one flag of the field is given: it builds the
    choice named by `default_choice_name` from that class's own defaults. A field of this type should
    therefore use `field(default_factory=WorldModelConfig.default)`.

    Args:
        size: The size, named by its counted parameters; each world model has its own.
        image_size: The side of the square frames that the world model sees, in pixels: 32, 64, 128 or 256.
        camera: The camera whose frames it predicts, e.g. observation.images.top; None takes the first in name order.
        loss_weight: A factor on the returned loss. Pixel errors are counted as DreamerV3 does, summed over a 64x64 RGB
            frame, which is of the order of 100 early on; 0.01 brings the loss to the order of 1, beside a policy's
            own, so that clipping the joint gradient norm leaves the policy's share alone.
    """

    # True if x_0 reaches the prediction only through the latent-sized state of the model. Where it does not, a model
    # driven by the policy's own latents, which are a function of x_0, can do without them.
    first_frame_bottleneck: ClassVar[bool] = True

    size: str
    image_size: int = 64
    camera: str | None = None
    loss_weight: float = 0.01

    def __post_init__(self) -> None:
        flag = "--policy.world_model"
        name = f"world_model.size of type '{self.type}'"
        _check_choice(name, self.size, self.sizes(), f"{flag}.size")
        _check_choice("world_model.image_size", self.image_size, IMAGE_SIZES, f"{flag}.image_size")
        _check_not_negative("world_model.loss_weight", self.loss_weight, f"{flag}.loss_weight")

    @classmethod
    def default_choice_name(cls) -> str:
        return "recurrent"

    @classmethod
    def default(cls) -> "WorldModelConfig":
        return cls.get_choice_class(cls.default_choice_name())()

    @property
    def type(self) -> str:
        return self.get_choice_name(self.__class__)

    @classmethod
    @abc.abstractmethod
    def sizes(cls) -> Collection[str]:
        """Names that `size` may have."""

    @abc.abstractmethod
    def build(self, latent_dim: int, horizon: int) -> "WorldModel":
        """The module, newly initialised. `horizon` is H, for models whose shape depends on it."""


@WorldModelConfig.register_subclass("rssm")
@dataclass
class RSSMConfig(WorldModelConfig):
    """DreamerV3's recurrent state-space model: a deterministic and a discrete stochastic state.

    Args:
        size: The size, named by its counted parameters.
        decoded_frames: Frames of each clip that are decoded in a training step, drawn at random, the last one always
            among them: as many reconstructed as predicted open loop, 2 at least. 0 decodes all, as evaluation does.
        open_loop_weight: The weight of the pixel error of the open-loop prediction, beside the posterior's
            reconstruction error.
        dynamics_weight: The weight beta_dyn of a KL term, as in DreamerV3's first version and in LAWM (DreamerV3's
            later version raises it to 1).
        representation_weight: The weight beta_rep of the other KL term.
        free_bits: The KL below which nothing is pushed, in nats.
        unimix: The share of the uniform distribution in every categorical one.
    """

    size: str = "12m"
    decoded_frames: int = 4
    open_loop_weight: float = 1.0
    dynamics_weight: float = 0.5
    representation_weight: float = 0.1
    free_bits: float = 1.0
    unimix: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("open_loop_weight", "dynamics_weight", "representation_weight", "free_bits"):
            _check_not_negative(f"world_model.{name}", getattr(self, name), f"--policy.world_model.{name}")
        if self.decoded_frames < 0 or self.decoded_frames == 1:
            raise ParsingError(
                f"world_model.decoded_frames is {self.decoded_frames!r} but must be 0 (all) or at least 2 (the last frame "
                "and a random one): change `--policy.world_model.decoded_frames`."
            )
        if not 0 < self.unimix < 1:
            raise ParsingError(
                f"world_model.unimix is {self.unimix!r} but must lie between 0 and 1, or a KL can become "
                "infinite: change `--policy.world_model.unimix`."
            )

    @classmethod
    def sizes(cls) -> Collection[str]:
        return RSSM_SIZES.keys()

    def build(self, latent_dim: int, horizon: int) -> "WorldModel":
        from lawm_lerobot.method.world_models.rssm import RSSM

        del horizon  # A recurrence unrolls to any horizon.
        return RSSM(self, latent_dim)


@WorldModelConfig.register_subclass("recurrent")
@dataclass
class RecurrentConfig(WorldModelConfig):
    """A cheap, deterministic model: encodes x_0 once, rolls the latents, paints what changes over x_0.

    Args:
        size: The size, named by its counted parameters.
        motion_weight: The extra weight of pixels that differ from x_0: little of a frame moves, and the background
            would drown it. 0 turns it off.
    """

    first_frame_bottleneck: ClassVar[bool] = False  # the decoder sees x_0's maps at every scale

    size: str = "2m"
    motion_weight: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        flag = "--policy.world_model.motion_weight"
        _check_not_negative("world_model.motion_weight", self.motion_weight, flag)

    @classmethod
    def sizes(cls) -> Collection[str]:
        return RECURRENT_SIZES.keys()

    def build(self, latent_dim: int, horizon: int) -> "WorldModel":
        from lawm_lerobot.method.world_models.recurrent import RecurrentWorldModel

        del horizon  # A recurrence unrolls to any horizon.
        return RecurrentWorldModel(self, latent_dim)


@dataclass
class InverseDynamicsConfig:
    """The inverse dynamics q(z_k | x_k, x_{k+1}, neighbours).

    Args:
        type: ``network``, or ``principal_components`` of the pixels' change in its place: a control, which learns nothing
            and has none of the other fields.
        size: The size, named by its counted parameters: test, 1m, 3m.
        random_shift: The largest shift, in pixels, of its own input while training. The world model sees the frames
            unshifted: a shift that both see turns the latent into a code for the shift.
        context: Transitions on either side that a latent may depend on, besides its own.
    """

    type: str = "network"
    size: str = "1m"
    random_shift: int = 4
    context: int = 1

    def __post_init__(self) -> None:
        _check_choice("idm.type", self.type, ("network", "principal_components"), "--policy.idm.type")
        _check_choice("idm.size", self.size, INVERSE_DYNAMICS_SIZES, "--policy.idm.size")
        _check_not_negative("idm.random_shift", self.random_shift, "--policy.idm.random_shift")
        _check_not_negative("idm.context", self.context, "--policy.idm.context")

    def build(self, latent_dim: int, image_size: int) -> "InverseDynamics | PrincipalComponents":
        """The module, newly initialised, for frames of the world model's `image_size`."""
        from lawm_lerobot.method.inverse_dynamics import InverseDynamics
        from lawm_lerobot.method.principal_components import PrincipalComponents

        if self.type == "principal_components":
            return PrincipalComponents(latent_dim)

        return InverseDynamics(latent_dim, image_size, self.size, self.random_shift, self.context)
