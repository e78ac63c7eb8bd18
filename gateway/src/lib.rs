//! The gateway: WebSocket sessions, hub and upstream link.
