"""What is counted in Redis as it happens, and read without looking through anything: answers, webhooks, campaigns."""
