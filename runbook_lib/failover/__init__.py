"""What happens to those who write while the database moves: recorded by clients, judged from what they recorded."""
