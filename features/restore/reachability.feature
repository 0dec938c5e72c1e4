Feature: What can be recovered
  Runbook 2.2. Before anybody needs it: which moments of the last 30 days can be recovered, and how long it would take.

  As written, the runbook keeps WAL for 30 days and asks for nothing more until the day of the recovery. One segment that
  is missing takes away all that comes after it, up to the next base backup; a base backup that is missing makes every
  recovery after it longer. So the whole window is laid out from what the bucket lists: a moment counts where a base
  backup ended before it, and every segment is there from its beginning to a transaction that is later. Where nothing is
  there yet, because the cluster is younger than the window, its first day without a base backup is excused.

  @weekly @reads
  Scenario: Every moment of the retention window can be recovered
    Given the WAL archive and its base backups
    Then every moment of the retention window can be recovered
    And no recovery takes longer than 4 hours, as predicted
