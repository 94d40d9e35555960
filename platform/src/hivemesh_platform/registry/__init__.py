"""Who is live: worker types, instances and their leases."""
