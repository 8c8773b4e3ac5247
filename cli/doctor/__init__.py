"""`edgefarm doctor`: walks from the API server to the sidecar and says what is wrong."""
