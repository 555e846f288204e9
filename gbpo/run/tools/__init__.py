"""Tools: functions that the model calls while it writes a completion."""
