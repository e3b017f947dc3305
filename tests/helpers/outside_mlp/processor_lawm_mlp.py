"""Pre- and post-processing of ``lawm_mlp``: the MLP's own."""

from helpers.outside_mlp.processor_mlp import make_mlp_pre_post_processors

from lawm_lerobot.policies.common.processing import staged

make_lawm_mlp_pre_post_processors = staged(make_mlp_pre_post_processors)
