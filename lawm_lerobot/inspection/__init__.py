"""Inspection: what a policy has learned."""
