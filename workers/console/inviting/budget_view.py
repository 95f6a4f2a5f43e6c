"""What a campaign costs at most against what it may, in segments, and in money where somebody has said what one costs. Pure.

A budget is kept to before people are invited: a table that might take the campaign beyond it is refused. What is invited already is
not stopped by it, as a conversation that has begun is owed its end; nor is what others invite by the API.
"""

from decimal import Decimal

import msgspec


class CampaignBudget(msgspec.Struct, frozen=True):
    """As somebody has written it: money for a segment, and what the campaign may cost in that money, or without a price in segments;
    empty: nobody has said."""

    price: str = ""
    budget: str = ""


class BudgetView(msgspec.Struct, frozen=True):
    """Segments of a campaign: spent as far as the archive has it, of all others of it at most, and of who would be invited; None:
    nothing bounds them. `unread` is why the archive was not read: then all count among the others."""

    terms: CampaignBudget
    spent: int
    ahead: int | None
    more: int | None = 0
    unread: str = ""

    @property
    def most(self) -> int | None:
        """All of it, at most."""
        return None if self.ahead is None or self.more is None else self.spent + self.ahead + self.more

    @property
    def is_exceeded(self) -> bool:
        """Whether it might cost more than it may, or nobody can say."""
        if not self.terms.budget:
            return False
        return self.most is None or self._amount(self.most) > Decimal(self.terms.budget)

    def worded(self, segments: int | None) -> str:
        """So many segments, in money too if one has a price."""
        if segments is None:
            return "no bound"
        money = f" ({self._amount(segments):,} at {self.terms.price} each)" if self.terms.price else ""
        return f"{segments:,} segment{'' if segments == 1 else 's'}{money}"

    @property
    def worded_spent(self) -> str:
        return self.worded(self.spent) if not self.unread else f"not known, and counted below. {self.unread}"

    @property
    def worded_budget(self) -> str:
        if not self.terms.budget:
            return ""
        return f"{Decimal(self.terms.budget):,}{'' if self.terms.price else ' segments'}"

    @property
    def sentence(self) -> str:
        """What the budget says to it; nothing, if there is none."""
        if not self.terms.budget:
            return ""
        if self.most is None:
            budget = self.worded_budget
            return f"Nothing bounds what it costs, so it cannot be kept within its budget of {budget}."
        most = f"{self._amount(self.most):,}"
        if self.is_exceeded:
            return f"It might cost {most}, which is more than its budget of {self.worded_budget}."
        return f"It costs at most {most} of its budget of {self.worded_budget}."

    def _amount(self, segments: int) -> Decimal:
        return segments * Decimal(self.terms.price) if self.terms.price else Decimal(segments)
