"""Language models behind an OpenAI-compatible server: asked politely, paid knowingly, kept on disk."""

from caft_utils.interpret.endpoint.client import Endpoint, Estimate
from caft_utils.interpret.endpoint.response_cache import EndpointError, Reply

__all__ = ["Endpoint", "EndpointError", "Estimate", "Reply"]
