"""``mlp`` and ``lawm_mlp``: somebody else's policy, and its wrapper, in a package of their own (CONTRIBUTING, "Add a policy")."""
