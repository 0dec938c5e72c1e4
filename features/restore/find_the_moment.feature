Feature: Finding the moment
  Runbook 2.2. Before anything is restored to a moment, the moment is known: which transaction removed the rows, and what
  a recovery to just before it would give up.

  As written, the runbook takes the time from whoever remembers it. A recovery to a guessed time takes hours, and then
  another one is needed. Here the WAL is asked. Every row that was deleted stands in it, and the transaction that did
  it, when that committed and at which position. Where several removed rows all are named, the largest first: which one
  was the mistake is for people to say. A window that could not be read whole is unproven, never "nothing happened".

  @quarterly @reads
  Scenario: Whoever removed rows of a table is named
    Given rows that vanished, by default from training_clients within the last hour
    When the archived WAL of that time is read
    Then it was read without a hole
    And each transaction that removed rows is named, with what a recovery to just before it gives up
