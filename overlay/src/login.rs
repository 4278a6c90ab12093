//! The login server (placeholder; being written).
