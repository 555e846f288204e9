"""The processes of a run: how they are launched, agree with each other, and end."""
