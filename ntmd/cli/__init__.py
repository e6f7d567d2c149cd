"""The command ``ntmd``: talks to the control socket, and starts the daemon as another process.

Reports go to stdout, progress and complaints to stderr. It imports neither the node nor an event
loop, so that each command starts quickly.
"""
