"""What do a survey's results mean? Their columns, questions and options, from all of its versions. Pure."""
