"""Pre- and post-processing of ``mlp``."""

from lerobot.processor import make_default_pre_post_processors

make_mlp_pre_post_processors = make_default_pre_post_processors
