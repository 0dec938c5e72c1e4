Feature: Table-level restore
  Runbook 2.3. Rows that are missing from one table come back from last night's backup.

  As written, the runbook restores a table of another name, which restores nothing and exits 0, then renames the living
  table away and drops it: foreign keys, views, grants, policies and publications go with it. Here the table stays. It is
  restored with everything that belongs to it where nothing can be harmed, and compared with its manifest; then row by
  row with the living one, and only the rows that are missing are put into that, in one transaction, while writers go
  on. What was there before is kept, and the merge can be taken back.

  @changes
  Scenario: Rows that are missing from a table come back
    Given last night's backup
    Then it is whole
    And it is of this database
    And the time and room that training_clients takes are predicted
    When training_clients is restored from it to scratch
    Then it is what its manifest says
    When the rows that are missing are merged into the living table
    Then no row of the backup is missing
    And every foreign key holds
    And the table is still the same one
    And the audit chain of the database is unbroken
    And the audit chain of the database leads on from the backup's
    And the table took as long as predicted

  # What was there just before a mistake is in no nightly backup: the table is taken from a recovery (2.2).
  @changes
  Scenario: Rows come back as they were at a moment
    Given a moment that can be recovered
    When the cluster is recovered to it
    Then it pauses exactly there
    When it is promoted
    And training_clients is taken from it
    And the rows that are missing are merged into the living table
    Then no row of the backup is missing
    And every foreign key holds
    And the table is still the same one
    And the audit chain of the database is unbroken

  @changes
  Scenario: A merge is taken back
    Given a table that rows were merged into
    When the merge is taken back
    Then the table is as it was before the merge
    And every foreign key of it holds
    And the audit chain of the database is unbroken
