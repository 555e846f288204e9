"""What a run will do, need and risk, before it starts."""
