//! Who gets a frame: routes, slots and plans, pure and shared by broker and gateway.
//!
//! [`Routes`] maps (namespace, UID) to the gateway slots that registered it and turns a batch of
//! [`Query`] into a [`Plan`]: which gateways, each with its part of the UID list. [`Directory`] is
//! the same map to small member ids; a gateway's hub uses it for its local connections. [`Logins`]
//! says which of a user's logins has to go where a policy allows one only.
//!
//! Never here: payload bytes, links, outboxes, a clock, a random source, a logger. The same calls
//! in the same order give the same results, down to the order of every list.

mod ahead;
mod connection_tags;
mod cost;
mod directory;
mod error;
pub mod filter;
#[doc(hidden)]
pub mod fuzzing;
mod gather;
mod holders;
mod ids;
mod logins;
mod map;
#[doc(hidden)]
pub mod oracle;
#[cfg(all(test, loom))]
mod orders;
mod plan;
mod reach;
mod resolve;
mod routes;
mod scratch;
mod selector;
mod slot;
mod slots;
mod space;
mod spaces;
mod sweep;
mod sync;
mod table;
mod tags;
mod whereabouts;

pub use connection_tags::{ConnectionTags, Matcher, Matching};
pub use cost::{Choice, Cost};
pub use directory::{Directory, Inserted, Removed};
pub use error::SlotError;
pub use gather::Gathering;
pub use holders::GatewaySlot;
pub use ids::{Incarnation, Namespace, Slot, Uid};
pub use logins::{Displaced, Login, Logins, Policies, Policy};
pub use plan::{Audience, Mode, Part, Plan, Query, Routed};
pub use routes::{
    Applied, Change, Counts, Limits, Op, Routes, SweepProgress, TagChange, TagLimit, TagsApplied,
};
pub use selector::Program;
pub use slot::SlotState;
pub use whereabouts::Whereabouts;
