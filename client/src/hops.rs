//! When a traced message passed where.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use waybill_wire::code::TraceHop;
use waybill_wire::frame::HopTime;

/// Where a message passed, in the order of its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Place {
    /// The producer gave it to its link, to be written.
    Producer,
    /// The broker took it up.
    BrokerIn,
    /// The broker had found its gateways, and queued a frame for each.
    Routed,
    /// The broker gave the frame for a gateway to the transport.
    Written,
    /// That gateway had received the whole frame.
    GatewayIn,
    /// That gateway had handed the message to the socket of the first of its connections.
    Socket,
}

impl Place {
    /// Its name: `producer`, or that of the protocol's registry.
    #[must_use]
    pub fn name(self) -> &'static str {
        let hop = match self {
            Self::Producer => return "producer",
            Self::BrokerIn => TraceHop::BROKER_IN,
            Self::Routed => TraceHop::ROUTED,
            Self::Written => TraceHop::WRITTEN,
            Self::GatewayIn => TraceHop::GATEWAY_IN,
            Self::Socket => TraceHop::SOCKET,
        };
        hop.name().unwrap_or_default()
    }
}

/// A moment by the wall clock of one process. Clocks of different machines differ: only times of
/// one process tell for certain what took how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    /// What was passed.
    pub place: Place,
    /// Microseconds since 1970-01-01 00:00 UTC.
    pub time_us: u64,
    /// Whose clock it is: the producer's instance, the broker's number, a gateway's incarnation.
    pub process: u64,
    /// Incarnation of the gateway it is about.
    pub gateway: Option<u64>,
}

impl Hop {
    pub(crate) fn of(told: HopTime) -> Self {
        let place = match told.hop {
            TraceHop::BROKER_IN => Place::BrokerIn,
            TraceHop::ROUTED => Place::Routed,
            TraceHop::WRITTEN => Place::Written,
            TraceHop::GATEWAY_IN => Place::GatewayIn,
            _ => Place::Socket,
        };
        let gateway = (place > Place::Routed).then_some(told.gateway);
        Self { place, time_us: told.time_us, process: told.process, gateway }
    }

    /// The same as a time of the system.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.time_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hop_of_the_protocol_has_a_place() {
        for (name, hop) in TraceHop::ALL {
            let told = Hop::of(HopTime { time_us: 1, process: 2, gateway: 3, hop: *hop });
            assert_eq!(told.place.name(), *name);
            assert_eq!(told.gateway.is_some(), told.place > Place::Routed);
        }
        assert_eq!(Place::Producer.name(), "producer");
    }
}
