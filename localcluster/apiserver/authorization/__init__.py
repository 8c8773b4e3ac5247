"""Who may do what: Kubernetes' role based access control over the stored roles and bindings."""
