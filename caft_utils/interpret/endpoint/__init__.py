"""Client for OpenAI-compatible chat servers with rate limiting, cost estimates and an on-disk reply cache."""

from caft_utils.interpret.endpoint.client import Endpoint, Estimate
from caft_utils.interpret.endpoint.config import ClientConfig
from caft_utils.interpret.endpoint.reply import EndpointError, Reply

__all__ = ["ClientConfig", "Endpoint", "EndpointError", "Estimate", "Reply"]
