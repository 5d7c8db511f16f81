"""Measures a deployment by a scenario: text, pictures and sound at a given rate, beside the engine alone if wished."""
