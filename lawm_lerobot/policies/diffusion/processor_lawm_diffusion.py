"""Pre- and post-processing of ``lawm_diffusion``: Diffusion Policy's own."""

from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors

from lawm_lerobot.policies.common.processing import staged

make_lawm_diffusion_pre_post_processors = staged(make_diffusion_pre_post_processors)
