"""ntmd: connections that survive every move. NTMobile in user space."""

__version__ = "0.1.0"
