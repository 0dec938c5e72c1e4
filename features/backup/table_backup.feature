Feature: Backup of some tables
  Runbook 1.2. The rows of a few tables, before they are changed by hand.

  As written, the runbook dumps the tables without what they depend on: their types, functions and roles. Here the
  definitions of all objects are kept, the rows only of the tables named; what cannot come back from such a backup
  alone, foreign keys to tables that are not in it, is written down.

  @changes
  Scenario: Two tables are backed up, and restore
    Given the database
    When a backup of these tables is taken:
      | table            |
      | training_clients |
      | audit_logs       |
    Then it is in the archive with its manifest
    And it says what it cannot bring back alone
    When restored to tensafe_verify
    Then row counts match
    And contents match
    And the catalog matches
    And tensafe_verify is gone afterwards
