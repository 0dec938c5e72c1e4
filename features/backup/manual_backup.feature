Feature: Manual backup
  Runbook 1.2. A backup of the whole database, now, before something is done that may go wrong.

  As written, the runbook dumps to the primary's own disk, copies the file without a digest and uploads it by hand. Here
  the dump streams from the server to S3; nothing is written to a disk, and a dump that was cut short never becomes a
  backup, because its manifest is written last.

  @changes
  Scenario: A backup is taken by hand, and restores
    Given the database
    When a manual backup is taken
    Then it is in the archive with its manifest
    And the source hides nothing from it
    When restored to tensafe_verify
    Then row counts match
    And contents match
    And the catalog matches
    And tensafe_verify is gone afterwards
