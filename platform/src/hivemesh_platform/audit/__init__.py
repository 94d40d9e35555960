"""The audit trail: append-only, hash-chained records of what was allowed and refused, and to whom."""
