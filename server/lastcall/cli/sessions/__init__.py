"""What the commands say of sessions: lists, one of them, what happens now, orphans."""
