//! Starting and stopping servers: errors that name the flag to change, and an orderly end.
//!
//! The first signal drains: users are asked away from the gateway, then links from the broker. The
//! second ends the process as it stands. What draining means is the servers' own business.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;

use tracing::{info, warn};
use waybill_broker::{Broker, BrokerConfig, BrokerHandle, ShardFailed};
use waybill_gateway::{Gateway, GatewayConfig, GatewayHandle};

use crate::failure::{Failure, Outcome};
use crate::logs;
use crate::signals::Stops;

/// Starts a broker; `flag` is the one that changes its address.
pub(crate) fn start_broker(config: BrokerConfig, flag: &str) -> Outcome<BrokerHandle> {
    use waybill_broker::StartError;
    Broker::start(config).map_err(|error| match &error {
        StartError::Listen { key: "admin_listen", address, source } => Failure::failed(
            format_args!("the broker cannot listen on {address} for its admin: {source}"),
            "stop what listens there, or set broker.admin_listen to another address",
        ),
        StartError::Listen { address, source, .. } => {
            listen_failure("broker", *address, source, flag)
        }
        StartError::Uring(why) => Failure::failed(&error, why.remedy()),
        StartError::Config(error) => Failure::usage(error, "change [broker] in the settings"),
        other => Failure::failed(other, "see the cause"),
    })
}

/// Starts a gateway; `flag` is the one that changes its address.
pub(crate) async fn start_gateway(
    config: GatewayConfig,
    routes: Option<axum::Router>,
    flag: &str,
) -> Outcome<GatewayHandle> {
    use waybill_gateway::StartError;
    Gateway::start(config, routes).await.map_err(|error| match &error {
        StartError::Listen { address, source } => listen_failure("gateway", *address, source, flag),
        other => Failure::usage(other, "change [gateway] in the settings"),
    })
}

fn listen_failure(who: &str, address: SocketAddr, error: &io::Error, flag: &str) -> Failure {
    let free = SocketAddr::new(address.ip(), 0);
    let (cause, remedy) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            format!("the {who} cannot listen on {address}: the port is taken"),
            format!(
                "stop what listens there, or choose another with {flag} (such as {flag} {free})"
            ),
        ),
        io::ErrorKind::AddrNotAvailable => (
            format!("the {who} cannot listen on {address}: this machine has no such address"),
            format!("choose one of its own with {flag}"),
        ),
        _ => (
            format!("the {who} cannot listen on {address}: {error}"),
            format!("choose another address with {flag}"),
        ),
    };
    Failure::failed(cause, remedy)
}

/// What runs until it is told to stop; either part may be missing.
pub(crate) struct Running {
    pub(crate) gateway: Option<GatewayHandle>,
    pub(crate) broker: Option<BrokerHandle>,
}

impl Running {
    /// Runs until a signal, then drains; a second signal ends it at once.
    pub(crate) async fn until_stopped(mut self, stops: &mut Stops) -> Outcome {
        tokio::select! {
            () = stops.next() => {}
            ended = broker_ended(&mut self.broker) => return Err(shard_failure(&ended)),
        }
        logs::announce("draining; a second signal ends it now");
        tokio::select! {
            outcome = self.drain() => outcome,
            () = stops.next() => Err(Failure::failed(
                "stopped before everything was drained",
                "nothing: it was asked for by a second signal",
            )),
        }
    }

    async fn drain(&mut self) -> Outcome {
        if let Some(gateway) = &self.gateway {
            gateway.drain();
            gateway.closed().await;
        }
        if let Some(broker) = &mut self.broker {
            broker.drain();
            broker.stopped().await.map_err(|error| shard_failure(&Err(error)))?;
            let ledger = broker.ledger();
            if let Err(wrong) = ledger.balances() {
                warn!(%wrong, "the ledger does not balance");
            }
            info!(ledger = %serde_json::json!(ledger), "broker stopped");
        }
        Ok(())
    }
}

async fn broker_ended(broker: &mut Option<BrokerHandle>) -> Result<(), ShardFailed> {
    match broker {
        Some(broker) => broker.stopped().await,
        None => std::future::pending().await,
    }
}

fn shard_failure(ended: &Result<(), ShardFailed>) -> Failure {
    let cause: &dyn Display = match ended {
        Ok(()) => &"the broker has ended by itself",
        Err(error) => error,
    };
    Failure::failed(cause, "see the log above; start it again")
}
