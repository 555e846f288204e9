"""The study of the family of losses without reference answers."""
