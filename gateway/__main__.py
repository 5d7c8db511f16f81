"""`python -m gateway` is the command `gemma-gateway`."""

from gateway.cli import main

main(prog_name="gemma-gateway")
