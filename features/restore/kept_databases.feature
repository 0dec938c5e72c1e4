Feature: What restores keep
  Runbook 2.1 and 2.3. A full restore keeps the database that it replaced, and a merge what it needs to be taken back.

  As written, the runbook drops the database before it restores, and the old table at once: there is nothing to keep,
  and no way back. Here both are kept until a moment that stands on them; and when that has passed they are dropped by
  the same rules that made them, and not by hand from a list of names that look alike. Only what bears our mark, is past
  its time, is shut and has nobody inside is dropped.

  @quarterly @changes
  Scenario: What was kept past its time is dropped
    Given what restores keep
    When what is past its time is dropped
    Then nothing is kept past its time
    And what is not past its time is still there

  @weekly @reads
  Scenario: Nothing is kept past its time
    Given what restores keep
    Then nothing is kept past its time
