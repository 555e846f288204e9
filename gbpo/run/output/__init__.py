"""The output folder of a run and the progress it shows."""
