"""Why nobody signs in by the OpenID provider: it is not there or says what cannot be used, or what came of it is not to be believed."""

from engine.model.errors import ParleyError


class OidcUnavailableError(ParleyError):
    """The provider does not answer, or not as OpenID Connect says it does. The text says what."""


class OidcRefusedError(ParleyError):
    """What came from the provider lets nobody in. The text says why, to whoever wanted in; `name` is who that is, if it is known."""

    def __init__(self, sentence: str, name: str = "") -> None:
        super().__init__(sentence)
        self.name = name
