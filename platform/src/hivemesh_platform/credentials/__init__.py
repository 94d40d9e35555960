"""Secret stores, references and leases. A value is never logged, stored in a row of work or returned in an error."""
