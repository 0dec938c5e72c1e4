-- What one member is, in one look. A session that checks is held read-only, so that its own transaction_read_only says
-- nothing: what others would get is the reset value.
SELECT
    (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system_identifier,
    pg_catalog.pg_is_in_recovery() AS in_recovery,
    (SELECT reset_val = 'on' FROM pg_catalog.pg_settings WHERE name = 'default_transaction_read_only') AS read_only,
    CASE
        -- The control file learns of a new timeline only with the first checkpoint on it.
        WHEN NOT pg_catalog.pg_is_in_recovery() THEN
            ('x' || left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8))::bit(32)::int
        ELSE
            (SELECT greatest(receiver.received_tli, ended.min_recovery_end_timeline, checkpoint.timeline_id)
             FROM pg_catalog.pg_stat_get_wal_receiver() AS receiver,
                  pg_catalog.pg_control_recovery() AS ended,
                  pg_catalog.pg_control_checkpoint() AS checkpoint)
    END AS timeline,
    CASE
        WHEN NOT pg_catalog.pg_is_in_recovery() THEN
            pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), '0/0')::bigint
        ELSE
            pg_catalog.pg_wal_lsn_diff(greatest(
                pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn()), '0/0')::bigint
    END AS written,
    pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_replay_lsn(), '0/0')::bigint AS replayed,
    (SELECT coalesce(receiver.status, 'hidden')
     FROM pg_catalog.pg_stat_get_wal_receiver() AS receiver WHERE receiver.pid IS NOT NULL) AS receiver,
    pg_catalog.current_setting('synchronous_standby_names') AS waits_for,
    -- Without the right to look, the rows are there and what they say is not.
    (SELECT count(*) FROM pg_catalog.pg_stat_get_wal_senders() AS sender
     WHERE sender.sync_state IN ('sync', 'quorum')) AS confirming,
    (SELECT count(*) FROM pg_catalog.pg_stat_get_wal_senders() AS sender
     WHERE sender.pid IS NOT NULL AND sender.sync_state IS NULL) AS hidden
