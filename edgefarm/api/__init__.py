"""Our custom resources: raw JSON parsed once, at the edge, into frozen types; and the CRDs that admit them."""
