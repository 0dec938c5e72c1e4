from __future__ import annotations

from tests.evidence.project import Project

TWO_FEATURES = """
@reads
Feature: Backups
  Scenario: Last night's backup is there
    Given last night's backup

  @weekly
  Scenario Outline: Rows are counted
    Given last night's backup
    Then there are <rows> rows

    Examples:
      | rows | of    |
      | 5    | users |
      | 5    | a b   |
"""


def test_a_feature_file_is_run_without_a_module_that_binds_it(project: Project) -> None:
    project.write("features/backup/backups.feature", TWO_FEATURES)
    result = project.run("features/backup/backups.feature", "--junitxml=reports/junit.xml")
    assert result.ret == 0
    result.assert_outcomes(passed=3)
    assert list(project.junit) == [
        "last_nights_backup_is_there",
        "rows_are_counted[5-users]",
        "rows_are_counted[5-a b]",
    ]
    assert 'classname="features.backup.backups.feature"' in (project.path / "reports/junit.xml").read_text()


def test_scenarios_are_chosen_by_word_by_tag_and_by_node_id(project: Project) -> None:
    project.write("features/backup/backups.feature", TWO_FEATURES)
    project.run("-k", "counted and users").assert_outcomes(passed=1, deselected=2)
    project.run("-m", "weekly").assert_outcomes(passed=2, deselected=1)
    project.run("features/backup/backups.feature::last_nights_backup_is_there").assert_outcomes(passed=1)


def test_a_scenario_is_where_its_text_is(project: Project) -> None:
    project.write("features/backup/backups.feature", TWO_FEATURES)
    result = project.run("-vv", "features")
    assert "site-packages" not in result.stdout.str()
    result.stdout.fnmatch_lines(["*features/backup/backups.feature::last_nights_backup_is_there*"])
    assert [scenario["line"] for scenario in project.summary["scenarios"]] == [3, 7, 7]


def test_two_titles_that_read_alike_as_words_are_both_run(project: Project) -> None:
    project.write(
        "features/a.feature",
        """
        @reads
        Feature: Alike
          Scenario: Is it there?
            Given last night's backup
          Scenario: Is it there!
            Given last night's backup
        """,
    )
    project.run().assert_outcomes(passed=2)


def test_a_fixture_of_module_scope_lasts_for_a_feature(project: Project) -> None:
    project.write(
        "drill_steps.py",
        """
        import pytest
        from pytest_bdd import given

        @pytest.fixture(scope="module")
        def server(request):
            with open("starts", "a") as starts:
                print(request.module.__doc__, file=starts)

        @given("a server")
        def _(server): pass
        """,
    )
    for name in ("One", "Two"):
        project.write(
            f"features/{name}.feature",
            f"""
            @reads
            Feature: {name}
              Scenario: First
                Given a server
              Scenario: Second
                Given a server
            """,
        )
    project.run().assert_outcomes(passed=4)
    assert (project.path / "starts").read_text().split() == ["One", "Two"]
