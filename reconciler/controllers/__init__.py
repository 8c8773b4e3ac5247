"""One module per kind of root that is reconciled, and what they share: gather, let `desired` decide, apply, report."""
