"""`openenv:URL`: an environment that an OpenEnv server runs.

A server whose actions are tools (MCP) gives the model these tools. Any other server gives it one tool, `step`, whose
arguments are the fields of an action.
"""
