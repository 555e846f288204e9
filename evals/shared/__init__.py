"""What several evaluations use: the results file, estimates with intervals, the hardware, the command line."""
