"""`make demo-helm`: installs the chart with Helm's own SDK, and checks the product on that installation."""
