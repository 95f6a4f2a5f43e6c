"""A survey in which END is an answer as well as a STOP."""

ASKED = "Go on?\n1. Go on\n2. End"
SURVEY = """
survey: clinic
start: [START]
cooldown: 0s
texts: {stopped: "You will get no more."}
steps:
  - {id: next, ask: "Go on?", answer: {type: choice, options: [Go on, End]}}
  - {id: bye, say: "So be it."}
"""
