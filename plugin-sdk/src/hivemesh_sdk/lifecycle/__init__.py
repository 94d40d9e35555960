"""The life of a worker process: find the worker, enrol, register, beat, drain, leave."""
