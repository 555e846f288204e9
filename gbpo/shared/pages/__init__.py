"""Pages that gbpo writes: their base template, style, charts, colours and number formats."""
