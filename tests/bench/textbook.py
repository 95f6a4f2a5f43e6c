"""The same clinic as people write it with Dramatiq on the first day, by the book, and not badly: a webhook that only
enqueues, one actor for each SMS, a lock for each sender, the session as JSON, sending in an actor of its own so that
a slow provider holds nobody up. It is what Parley is measured against.

Nothing here is slowed down: the same web server as Parley's, one connection pool, stock broker and middleware. What
it does not do (survive a kill between two lines, keep a sender's SMS in order, know a webhook that comes twice)
costs it nothing here. `python -m tests.bench.textbook` serves the webhook; `dramatiq tests.bench.textbook` works.
"""

import asyncio
import json
import os
import uuid
from typing import Any, cast

import dramatiq
import falcon
import falcon.asgi
import redis
import requests
import uvicorn
from dramatiq.brokers.redis import RedisBroker

broker = RedisBroker(url=os.environ.get("BROKER_URL", "redis://127.0.0.1:6379/1"))  # type: ignore[no-untyped-call]
dramatiq.set_broker(broker)
database = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
http = requests.Session()  # kept-alive connections: the obvious first improvement

LOCK_S = 30
SESSION_S = 3 * 24 * 3600
HEADERS = {"api-login": "login", "api-key": "key"}

NAME = "What is your name?"
TEMPERATURE = "What is your temperature, {name}? (Fahrenheit, e.g. 98.6)"
FEVER = "Do you have a fever?"
DOCTOR = "You should see a doctor, our medic will call you soon."
HEALTHY = "Your health is good. Have a nice day!"
INVALID = "Please answer with digits and a dot only."

Session = dict[str, Any]


@dramatiq.actor(queue_name="inbound")
def inbound(sender: str, text: str) -> None:
    """Advance the sender's conversation, and have the answer sent."""
    with database.lock(f"lock:{sender}", timeout=LOCK_S):
        stored = cast(bytes | None, database.get(f"session:{sender}"))
        session, reply = advance(json.loads(stored) if stored else {}, text.strip())
        database.set(f"session:{sender}", json.dumps(session), ex=SESSION_S)
        if reply:
            send.send(sender, reply, uuid.uuid4().hex)


@dramatiq.actor(queue_name="send")
def send(to: str, text: str, request_id: str) -> None:
    """Send one SMS. An error status raises, and Dramatiq tries again."""
    body = {
        "recipients": [{"phone_number": to}],
        "text": text,
        "type": "sms_premium",
        "request_id": request_id,
    }
    http.post(os.environ["SMS_URL"], json=body, headers=HEADERS, timeout=10).raise_for_status()


def advance(session: Session, text: str) -> tuple[Session, str]:
    """The session after this SMS, and the answer to it."""
    if text.upper() == "START":
        return {"step": "name", "answers": {}}, NAME
    step = session.get("step")
    if step is None:
        return session, ""
    answers = session["answers"] | {step: text}
    if step == "name":
        return {"step": "temperature", "answers": answers}, TEMPERATURE.format(name=text)
    if step == "temperature":
        try:
            value = float(text)
        except ValueError:
            return session, INVALID
        if value >= 95:
            return {"step": "fever", "answers": answers}, FEVER
        return {"step": None, "answers": answers}, HEALTHY
    return {"step": None, "answers": answers}, DOCTOR


class Webhook:
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        if req.get_param("token") != os.environ["TOKEN"]:
            raise falcon.HTTPForbidden
        sms = json.loads(await req.stream.read())
        await asyncio.to_thread(inbound.send, sms["number"], sms["text"])  # it waits for Redis


def create_app() -> "falcon.asgi.App[falcon.asgi.Request, falcon.asgi.Response]":
    app = falcon.asgi.App()
    app.add_route("/webhooks/clinic", Webhook())
    return app


if __name__ == "__main__":
    uvicorn.run(
        create_app(),
        port=int(os.environ["PORT"]),
        http="httptools",
        loop="uvloop",
        log_level="error",
        access_log=False,
    )
