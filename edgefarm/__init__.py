"""What the programs of edgefarm-network share: names, resource types, credentials. No I/O, no clock, no environment."""

__version__ = "0.1.0"
