"""`parley check` tells what would run, and what would not though it is there."""

from click.testing import CliRunner

from workers.check import check


def test_a_survey_that_no_channel_offers_is_told(monkeypatch):
    for name in ("PARLEY_CONFIG", "PARLEY_SURVEYS"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(check)
    assert result.exit_code == 0, result.output
    assert "  survey clinic (clinic.yaml, version " in result.output
    assert "\nsurvey tutorial (tutorial.json): no channel offers it" in result.output
    assert "\nsurvey clinic" not in result.output
