"""The platform's database: transactions, the one writer, schema versions."""
