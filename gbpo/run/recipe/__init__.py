"""From a recipe and the command line to checked configuration objects."""
