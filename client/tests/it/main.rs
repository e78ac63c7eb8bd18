//! Links over real sockets, against a broker that a test plays.

mod consumer;
mod consumers_links;
mod gateway;
mod lifecycle;
mod producer;
mod support;
mod tags;
