"""What one segment costs, as an option of commands."""

from decimal import Decimal, InvalidOperation

import click


class PriceType(click.ParamType[Decimal]):
    """Not below 0, and finite; with a point, as a comma would be read in two ways."""

    name = "price"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            price = Decimal(str(value))
        except InvalidOperation:
            price = Decimal(-1)
        if not price.is_finite() or price < 0:
            self.fail(f"{value} is no price: expected what one segment costs, as in 0.05", param, ctx)
        return price
