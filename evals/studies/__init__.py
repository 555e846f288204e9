"""Published results with the commands that made them, and the picture of the README."""
