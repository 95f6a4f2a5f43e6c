"""The console: what the commands say and do, in a browser. Start at console_app.py."""
