"""The command `edgefarm`: what users and administrators ask of an installation; above all programs, used by none."""
