"""An in-memory Kubernetes API server over HTTPS for demo and tests; where it differs from Kubernetes, it is wrong.

Not offered: authorization (every authenticated user may do everything), etcd semantics across restarts (state is lost),
logs, exec, conversion webhooks, aggregated API servers. CEL: see `cel_rules` for what the library lacks.
"""
