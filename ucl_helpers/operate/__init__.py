"""What operators need around a renewal: hooks, notices, metrics, monitoring, the doctor."""
