Feature: Point-in-time recovery
  Runbook 2.2. The cluster as it was at one moment, such as just before a mistake, in an instance of its own.

  As written, the runbook writes a recovery.conf, which no PostgreSQL since 12 starts with; empties the data directory,
  and with it the only WAL that was not archived yet; names no base backup, no target, no timeline; and fetches WAL by
  a command that says "not there" when the network is down, upon which PostgreSQL promotes early and loses rows without
  a word. Here the living cluster stays as it is. What the moment is recovered from, and the record at which that stops,
  is known before anything is fetched; the instance pauses there, and is believed only where both sides of the moment
  are seen: the last transaction before it is there, the first after it is not. It archives nothing.

  The moment is typed: --to '2026-11-24 12:00:00+00', a position, 'just before xid 742', 'restore point before_release'.
  Where none is, it is just before the last transaction that is archived.

  @quarterly @scratch
  Scenario: The database is recovered to just before a mistake
    Given a moment that can be recovered
    Then what its recovery takes is predicted
    When the cluster is recovered to it
    Then it pauses exactly there
    And it archives nothing and listens to nobody
    And the recovered audit chain is unbroken
    And it ends where it ended at that moment
    When it is promoted
    Then it takes writes on a timeline of its own
    And it archives nothing and listens to nobody
    And the recovered heap and indexes are sound
    And the recovery took as long as predicted
    And nothing is left of the recovered instance
