"""The arms and regimes that a benchmark can name."""

from dataclasses import dataclass
from itertools import product

from lawm_lerobot.method.latent_action import INVERSE_DYNAMICS, POLICY, SOURCES

SCRATCH = "none"  # the arm that the curves of all others are measured against
SUPERVISED = "supervised"
SUPERVISED_ALL = "supervised_all"
TRUE_ACTIONS = "true_actions"
DECODED_ACTIONS = "decoded_actions"


@dataclass(frozen=True)
class Arm:
    """The use that a policy makes of the corpus, besides the demonstrations that every arm has.

    Args:
        pretraining: The weights that finetuning starts from: None for random ones, `SUPERVISED` for those trained on
            the corpus with its true actions, or the source of the latent actions in LAWM pretraining.
        readout: A read-out to the demonstrations' actions shapes the latents during pretraining.
        corpus_actions: The actions with which the corpus joins the demonstrations: `TRUE_ACTIONS`, or `DECODED_ACTIONS`
            by the pretrained latents or an inverse model of the demonstrations alone. None leaves the corpus out.
        prolonged: Finetuning goes on for as long as pretraining and co-training would have taken.
        cotraining: Each batch of finetuning also holds clips of the corpus, with the latents that the pretrained inverse
            dynamics infers.
        transferred: Finetuning starts from the pretrained weights. False makes use of the inverse dynamics alone.
        trained: The pretraining learns. False leaves all its weights random, as a control.
        sees: The pictures show something. False makes them black, in training and evaluation, as a control.
        replayed: No policy: the demonstrations' own actions are replayed, in turn, whatever happens.
    """

    pretraining: str | None = None
    readout: bool = False
    corpus_actions: str | None = None
    prolonged: bool = False
    cotraining: bool = False
    transferred: bool = True
    trained: bool = True
    sees: bool = True
    replayed: bool = False

    @property
    def pretraining_name(self) -> str | None:
        if self.pretraining is None:
            return None
        return f"{'' if self.trained else 'untrained_'}{self.pretraining}{'+readout' if self.readout else ''}"

    @property
    def uses_corpus(self) -> bool:
        return self.pretraining is not None or self.corpus_actions is not None


def _known_arms() -> dict[str, Arm]:
    arms = {
        SCRATCH: Arm(),
        "none_equal_compute": Arm(prolonged=True),
        "none_blind": Arm(sees=False),
        "blind_replay": Arm(replayed=True),
        SUPERVISED: Arm(pretraining=SUPERVISED),
        SUPERVISED_ALL: Arm(corpus_actions=TRUE_ACTIONS),
        "inverse_model_decoded": Arm(corpus_actions=DECODED_ACTIONS),
        "cotraining": Arm(INVERSE_DYNAMICS, cotraining=True),
        "cotraining+readout": Arm(INVERSE_DYNAMICS, readout=True, cotraining=True),
        "cotraining_only": Arm(INVERSE_DYNAMICS, cotraining=True, transferred=False),
        "cotraining_untrained": Arm(INVERSE_DYNAMICS, cotraining=True, transferred=False, trained=False),
    }
    for source in SOURCES:
        for readout, decoded in product((False, True), repeat=2):
            if decoded and source == POLICY:
                continue  # There is no inverse dynamics to read latents from video.
            arm = Arm(source, readout, DECODED_ACTIONS if decoded else None)
            arms[f"{arm.pretraining_name}{'+decoded' if decoded else ''}"] = arm
    return arms


ARMS = _known_arms()
REGIMES = ("same_task", "other_tasks", "held_out_task")
