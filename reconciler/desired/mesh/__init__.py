"""The mesh's plan: who has which address, who is whose peer, and what hosts are told. Pure: no I/O and no clock."""
