"""Everything that a figure goes through."""
