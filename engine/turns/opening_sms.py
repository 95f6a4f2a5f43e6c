"""How many SMS does a session begin with? What its invitation needs of the day's SMS. Pure."""

from engine.surveys.program import END_INDEX, StatementStep, Survey


def max_opening_sms(survey: Survey) -> int:
    """The most SMS that a session begins with, before it waits for an answer."""
    longest: dict[int, int] = {END_INDEX: 1 if "completed" in survey.texts else 0}

    def most_sms_from(place: int) -> int:
        if place not in longest:
            step = survey.steps[place]
            longest[place] = 1  # should it lead back to itself
            if isinstance(step, StatementStep):
                longest[place] = 1 + max(most_sms_from(route.go) for route in step.routes)
        return longest[place]

    return max(1, most_sms_from(0))
