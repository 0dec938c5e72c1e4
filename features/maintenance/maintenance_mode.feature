Feature: Maintenance mode
  Runbook 2.1. The application is taken out of service and everybody is kept out of the database before anything is
  restored in its place.

  As written, the runbook scales the API to 0 and later to 3, whatever it was before, and terminates connections, which
  a pool reopens at once. Here the number of replicas is remembered and brought back, and the door is shut before
  anybody is put out. Each act is written down before it is done: a runner that is killed in the middle leaves nothing
  that `runbook recover` does not take back.

  @quarterly @changes
  Scenario: Maintenance mode is entered, and left as it was found
    Given the application is in service
    When it is taken out of service
    And everybody is kept out of the database
    And an empty database is made beside it
    Then no pod of the application is left
    And nobody is connected to the database
    When everything is put back
    Then the application has its former replicas
    And everybody may connect to the database
    And no database was left beside it
