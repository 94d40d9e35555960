"""The ledger of work: what it keeps, its statements, and who is woken by a change."""
