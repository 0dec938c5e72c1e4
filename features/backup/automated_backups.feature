Feature: Automated backups
  Runbook 1.1. A full backup every day at 02:00 UTC, WAL continuously, both kept for 30 days.

  As written, the runbook reads a log and lists a bucket. A log line is a claim, and the newest object may be empty or
  of another database. So what is looked at is the newest backup that has a manifest, and whether the object in the
  bucket is the one that the manifest speaks of.

  @weekly @before_maintenance @reads
  Scenario: Last night's backup is there
    Given last night's backup
    Then it is whole
    And it is of this database
    And it is of its usual size

  @weekly @reads
  Scenario: A month of backups is there
    Given the daily backups
    Then each of the last 30 nights has one
    And none was overwritten or removed

  @weekly @before_maintenance @reads
  Scenario: WAL is archived
    Given the database
    Then WAL archiving is alive
