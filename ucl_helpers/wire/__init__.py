"""One TLS session to one endpoint: the client, what a refusal means, and a session for consumers."""
