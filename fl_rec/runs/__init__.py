"""What a run writes: its folder, its roles' statuses, its models."""
