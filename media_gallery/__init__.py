"""File sharing and media gallery for XMPP chat networks."""

__version__ = "0.1.0"
