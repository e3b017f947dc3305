"""``lawm_vqbet``: a policy wrapped by somebody else, in a package of their own (CONTRIBUTING, "Add a policy")."""
