"""A job on several hosts: their addresses, and the link between their launchers."""
