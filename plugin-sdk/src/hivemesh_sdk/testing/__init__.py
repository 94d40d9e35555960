"""What workers are tested with: conformance suite, throw-away CA, fake platform, manual clock."""
