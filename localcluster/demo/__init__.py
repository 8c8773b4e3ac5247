"""`make demo`: runs the product's main job on localcluster and checks, step by step, what it shows."""
