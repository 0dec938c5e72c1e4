"""A real Patroni cluster on this machine.

A failover cannot be imitated: what it costs is decided by leases, elections and replication that run at the same time
and fail at the wrong moment. So here stand PostgreSQL servers that replicate, a Patroni beside each of them as it is
installed in production, and an etcd in which they keep who leads.

What it is not: the members share one machine, one clock and one disk, so that no drill here tells anything about any
of the three; and the etcd is a single one that does not wait for the disk, since what is drilled is its absence, not
its own elections.
"""
