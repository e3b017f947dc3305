"""The name under which cards of published adapters import `adapters`."""
