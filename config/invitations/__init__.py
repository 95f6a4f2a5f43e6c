"""Who invites, and who is asked to invite, read here what both speak of: an invitation and what came of it as the API writes them, a
table of people, and the client by which it is sent."""
