"""`make demo-edge`: edge nodes whose data survives the loss of their uplink."""
