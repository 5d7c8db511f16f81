"""Production serving for Google's Gemma models: an OpenAI-compatible gateway in front of vLLM."""
