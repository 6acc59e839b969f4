"""Language models behind an OpenAI-compatible server: asked politely, paid knowingly, kept on disk."""

from caft_utils.interpret.endpoint.endpoint import Endpoint, Estimate
from caft_utils.interpret.endpoint.replies import EndpointError, Reply

__all__ = ["Endpoint", "EndpointError", "Estimate", "Reply"]
