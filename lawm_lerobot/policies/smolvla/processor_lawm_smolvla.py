"""Pre- and post-processing of ``lawm_smolvla``: SmolVLA's own."""

from lerobot.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors

from lawm_lerobot.policies.common.processing import staged

make_lawm_smolvla_pre_post_processors = staged(make_smolvla_pre_post_processors)
