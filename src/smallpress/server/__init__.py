"""An OpenAI-shaped API over the engine: streaming, thinking kept apart, limits, metering, a chat page."""
