"""The command: python -m gptjax COMMAND, the same as the console script `gptjax`."""

from gptjax.cli import dispatch

dispatch.main()
