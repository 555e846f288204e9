"""What several evaluations need: estimates with intervals, and the machine."""
