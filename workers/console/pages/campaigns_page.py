"""Campaigns: how many of their invitations are in which state, and when the last has its turn, as the API tells."""

from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import quote

import falcon
from falcon.asgi import Request, Response

from workers.console.api_client import ApiClient, ApiUnavailableError
from workers.console.console_state import Console
from workers.console.form_reader import read_form
from workers.console.inviting.budget_view import BudgetView
from workers.console.inviting.campaign_budget import CampaignSpending
from workers.console.inviting.upload_work import UploadWork
from workers.console.kept_readings import KeptReading
from workers.console.pages.pause_form import read_pause_form

MAX_WHY_LENGTH = 200
"""As the API takes it."""

STATES = {
    "held": "waits for its turn",
    "waiting": "on its way",
    "open": "under way",
    "completed": "completed",
}
"""States that are shown by themselves, in the order in which an invitation has them; all others are summed up as ended otherwise."""


class CampaignsPage:
    """Those that changed last."""

    def __init__(self, console: Console, api: ApiClient) -> None:
        self._console = console
        self._api = api

    async def on_get(self, req: Request, resp: Response) -> None:
        found, problem = await self._console.calls.run(_ask, self._api, "/v1/campaigns")
        campaigns = [shown_campaign(each) for each in (found or {}).get("campaigns", [])]
        self._console.templates.respond(
            req,
            resp,
            "campaigns.html",
            campaigns=campaigns,
            states=STATES,
            more=(found or {}).get("more", False),
            problem=problem,
        )


class CampaignPage:
    """One of them; an operator lets what of it is held wait, and go on."""

    def __init__(self, console: Console, api: ApiClient, work: UploadWork) -> None:
        self._console = console
        self._api = api
        self._work = work

    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        found, problem = await self._console.calls.run(
            _ask, self._api, f"/v1/campaigns/{quote(name, safe='')}"
        )
        if found is None and not problem:
            raise falcon.HTTPNotFound(description="No campaign is called so, or it was long ago.")
        campaign = shown_campaign(found) if found else None
        spending, budget = await self._look_at_spending(name, found) if found else (None, None)
        self._console.templates.respond(
            req,
            resp,
            "campaign.html",
            name=name,
            campaign=campaign,
            states=STATES,
            problem=problem,
            spending=spending,
            budget=budget,
        )

    async def _look_at_spending(
        self, name: str, told: dict[str, Any]
    ) -> tuple[KeptReading[CampaignSpending], BudgetView | None]:
        """What it costs, as it was read last, and what its budget says to that, once there is anything."""
        console, work = self._console, self._work
        reading = await console.readings.look(
            ("campaign spending", name), partial(work.spending.read, name, told)
        )
        if reading.what is None:
            return reading, None
        terms = await console.calls.run(work.budgets.find, name)
        return reading, BudgetView(
            terms, reading.what.spent_segments, reading.what.ahead, unread=reading.what.unread
        )

    async def on_post(self, req: Request, resp: Response, name: str) -> None:
        console, user = self._console, req.context.user
        form = await read_form(req)
        match form.get("deed"):
            case "pause":
                why, _ = read_pause_form(form)
                change = {"paused": True, "why": f"{user.name}: {why}"[:MAX_WHY_LENGTH]}
            case "resume":
                change = {"paused": False}
            case _:
                raise falcon.HTTPBadRequest(title="Nothing was asked for")
        await console.calls.run(console.record, user, f"{form['deed']} campaign", name)
        path = f"/v1/campaigns/{quote(name, safe='')}"
        try:
            found = await console.calls.run(self._api.patch, path, change)
        except ApiUnavailableError as e:
            raise falcon.HTTPServiceUnavailable(title="Nothing was done", description=f"{e}.") from e
        if found is None:
            raise falcon.HTTPNotFound(description="No campaign is called so, or it was long ago.")
        raise falcon.HTTPSeeOther(f"/campaigns/{quote(name, safe='')}")


def shown_campaign(told: dict[str, Any]) -> dict[str, Any]:
    """What a page shows of a campaign, or a part of one, as the API tells of it; moments in ms."""
    states: dict[str, int] = told["states"]
    shown = {name: states.get(name, 0) for name in STATES}
    return told | {
        "address": f"/campaigns/{quote(told.get('name', ''), safe='')}",
        "shown": shown,
        "is_paused": "pausedSince" in told or told.get("state") == "paused",
        "why": told.get("why", ""),
        "otherwise": sum(states.values()) - sum(shown.values()),
        "total": sum(states.values()),
        "changed_ms": _moment_ms(told.get("changedAt")),
        "ends_ms": _moment_ms(told.get("endsAfter")),
        "shown_parts": [shown_campaign(each) for each in told.get("parts", [])],
    }


def _moment_ms(written: str | None) -> int:
    return round(datetime.fromisoformat(written).timestamp() * 1_000) if written else 0


def _ask(api: ApiClient, path: str) -> tuple[Any | None, str]:
    """What the API tells, or a sentence on why not."""
    try:
        return api.get(path), ""
    except ApiUnavailableError as e:
        return None, f"Campaigns cannot be shown: {e}."
