"""The evidence benchmark: arms x tasks x demonstrations x seeds from one YAML file (``lawm-benchmark``)."""
