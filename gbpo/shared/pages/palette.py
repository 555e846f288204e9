"""Colours and dashes of the lines, the same on the pages and in the figures."""

# (light theme, dark theme) per line; the first, for a baseline, is grey. Distinguishable for colour-blind readers.
PALETTE = (
    ("#565d6b", "#aab2c0"),
    ("#0b63c5", "#62acff"),
    ("#c04a00", "#ff9555"),
    ("#007a5e", "#3ccb9d"),
    ("#a03c88", "#ea96cf"),
    ("#846500", "#dcbc45"),
)
DASHES = ("5 3", "", "2 2", "8 2 2 2", "1 3", "10 4")
