Feature: Backup verification
  Runbook 1.3. Once a week last night's backup is restored and compared with what the database held when it was taken.

  As written, the runbook counts the rows of two tables. That misses changed values, lost grants, indexes, sequences
  and policies; and a comparison with the living database cries wolf, because it has moved on. So every table's rows,
  contents and definitions are compared with the manifest that was taken in the dump's own snapshot.

  @weekly @scratch
  Scenario: The weekly restore drill
    Given last night's backup
    When restored to tensafe_verify
    Then row counts match
    And contents match
    And the catalog matches
    And sequences will not collide
    And the audit chain is unbroken
    And the audit chain ends where it ended when the backup was taken
    And heap and indexes are sound
    And the restore was within its time budget
    And tensafe_verify is gone afterwards

  @scratch
  Scenario: The drill of a database without an audit log
    Given last night's backup
    When restored to tensafe_verify
    Then row counts match
    And contents match
    And the catalog matches
    And sequences will not collide
    And heap and indexes are sound
    And tensafe_verify is gone afterwards

  @quarterly @scratch
  Scenario: Every row is found in every index
    Given last night's backup
    When restored to tensafe_verify
    Then heap and indexes are sound in depth
    And tensafe_verify is gone afterwards

  # Nobody wrote down what such a backup should hold. That it restores, how old it is and that it is sound can be
  # proven; whether it is complete cannot, and stands in the report as unproven.
  @scratch
  Scenario: The drill of a backup that others made
    Given the newest backup that others put into others
    When restored to tensafe_verify
    Then it holds tables with rows
    And no sequence collides
    And heap and indexes are sound
    And tensafe_verify is gone afterwards
