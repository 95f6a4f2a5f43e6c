"""What tests and benchmarks stand on: real servers, a fake provider, people, and ways to break things."""
