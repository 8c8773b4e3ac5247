"""One module per command of `edgefarm`."""
