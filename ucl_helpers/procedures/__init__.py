"""The steps made durable: renewal, establishment, revocation, importing, rollback."""
