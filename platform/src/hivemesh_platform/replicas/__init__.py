"""The replicas of one platform: who is alive, who leads, and whose commits still count."""
