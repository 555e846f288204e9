"""The data sets that a recipe can name: files, Hub ids and generated tasks."""
