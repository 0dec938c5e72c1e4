Feature: Full restore
  Runbook 2.1. The whole database is replaced by last night's backup.

  As written, the runbook terminates connections, drops the database and restores in its place: pools come back before
  the drop, the only copy is gone before the dump is proven, and what belongs to the database itself is lost. Here the
  backup is restored beside the living database and compared with its manifest while that still serves; only then does
  the application go, and the two change places in one transaction, so that nobody waits for a restore; and what was
  replaced is kept, shut, under a dated name, and can be put back.

  @quarterly @changes
  Scenario: The database is replaced by last night's backup
    Given last night's backup
    Then it is whole
    And it is of this database
    And its time and room are predicted
    And there is room for a copy of it
    When it is restored beside the database
    Then row counts match
    And contents match
    And the catalog matches
    And sequences will not collide
    And the audit chain is unbroken
    And the audit chain ends where it ended when the backup was taken
    When the application is out of service and the database is shut
    And it takes the database's place
    Then the application answers writes
    And the audit chain of the database is unbroken
    And the audit chain of the database leads on from the backup's
    And the database that it replaced is kept, and shut
    And writes were refused for less than 5 minutes
    And it took as long as predicted

  @quarterly @changes
  Scenario: The database that was replaced is put back
    Given a database that was replaced
    When it is put back in its place
    Then the application answers writes
    And the audit chain of the database is unbroken
