Feature: Continuous archiving
  Runbook 1.1 and 2.2. WAL goes into the archive as it is written, and base backups beside it: together they bring the
  database back as it was at any moment, where a dump brings back 02:00 UTC alone.

  As written, the runbook trusts that both are there. A hole in the WAL is found on the day somebody recovers, and a base
  backup whose own WAL is missing never becomes whole. So the archive is looked at from the oldest base backup that a
  recovery can begin from to the last segment that the primary counts as archived.

  @weekly @before_maintenance @reads
  Scenario: The WAL archive is continuous
    Given the database
    Then the WAL archive is continuous

  @weekly @before_maintenance @reads
  Scenario: There is a base backup to recover from
    Given the base backups
    Then a recent one is there
    And it is of this cluster
    And its WAL is archived

  @changes
  Scenario: A base backup is taken
    When a base backup is taken
    Then it is the newest one
    And it is of this cluster
    And its WAL is archived
