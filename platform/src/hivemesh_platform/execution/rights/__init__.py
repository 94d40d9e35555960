"""On whose behalf work is done: tickets, data classes, secrets."""
