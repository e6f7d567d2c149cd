"""The shell around every core: event loop, sockets, files, logs. Used by the daemon and servers.

:mod:`~ntmd.runtime.driver` runs a core; :mod:`~ntmd.runtime.clock` is the only reader of clocks;
:mod:`~ntmd.runtime.udp` is a bound UDP socket; :mod:`~ntmd.runtime.control` is the control socket's
client and :mod:`~ntmd.runtime.control_server` its server; :mod:`~ntmd.runtime.statefiles` keeps
what must outlive a power cut; :mod:`~ntmd.runtime.journal` writes logs and traces;
:mod:`~ntmd.runtime.complaints` says to a user what went wrong.
"""
