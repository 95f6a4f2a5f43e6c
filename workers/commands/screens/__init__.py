"""What commands draw for people, apart from the commands that gather it."""
