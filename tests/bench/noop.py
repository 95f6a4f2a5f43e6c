"""A Falcon application that answers 204 and only counts: what the web server costs by itself."""

import os

import falcon
import falcon.asgi
import uvicorn


class Nothing:
    """GET answers how many POSTs there were, so that the load's own count can be checked."""

    def __init__(self) -> None:
        self._posts = 0

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        self._posts += 1
        resp.status = falcon.HTTP_204

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.text = str(self._posts)


def create_app() -> "falcon.asgi.App[falcon.asgi.Request, falcon.asgi.Response]":
    app = falcon.asgi.App()
    app.add_route("/webhooks/clinic", Nothing())
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
