"""Hears: webhooks become events in mailboxes."""
