"""E-mail archives as records: mbox, single messages, maildirs; plain or gzip."""
