"""The `hivemesh` command: a thin client of the API, except for `up`, `serve` and `init`."""
