"""What differs between deployments: settings, where things lie in Redis, what is logged and measured."""
