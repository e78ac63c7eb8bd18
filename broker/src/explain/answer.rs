//! What is answered: the shape of an [`Explanation`], which is also its JSON, and its words.

use serde::{Deserialize, Serialize};
use waybill_routing::Cost;

use super::question::UserId;

/// What would become of a message, were it published just now by a producer that may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// `ready`, `not_ready` or `draining`.
    pub state: String,
    /// Why the broker would not take it at all; what else is told is then what would be if it did.
    pub refused: Option<Refused>,
    /// Whether anybody would be sent it.
    pub reached: Reached,
    /// How it would get there, and what each way would cost.
    pub mode: Modes,
    /// What the producer sends.
    pub publish: FrameBytes,
    /// What the producer's receipt would count.
    pub receipt: Counts,
    /// Gateways it has to do with: at most [`GATEWAYS_SHOWN_MAX`](super::GATEWAYS_SHOWN_MAX),
    /// where there are more first those that would not be sent it.
    pub gateways: Vec<GatewaySeen>,
    /// Those that are not shown for being too many.
    pub gateways_more: usize,
    /// Those it has nothing to do with.
    pub gateways_others: usize,
    /// Those of all that are still declaring their users: whoever is registered nowhere may be
    /// theirs.
    pub gateways_filling: usize,
    /// What becomes of each user of a list, by fate; absent without a list.
    pub fates: Option<FateCounts>,
    /// The users of the list, each once: at most [`USERS_SHOWN_MAX`](super::USERS_SHOWN_MAX),
    /// where there are more first those that would not be sent it.
    pub users: Vec<UserSeen>,
    /// Those that are not shown for being too many.
    pub users_more: usize,
}

/// An error code, and what it means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The code of the receipt.
    pub code: String,
    /// Why.
    pub reason: String,
}

/// Whether anybody would be sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reached {
    /// Nobody.
    Nobody,
    /// Some of those it is for.
    Some,
    /// All of them; with a selector as far as the broker can know.
    All,
}

/// The mode it takes, and what `auto` weighs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modes {
    /// As it was asked for.
    pub asked: String,
    /// As it would be: `direct` or `broadcast`.
    pub taken: String,
    /// What `auto` takes.
    pub auto: String,
    /// Whether that is `direct` because somebody is told what becomes of each user: the producer by
    /// its receipt, or a consumer of the offline feed.
    pub fates_asked: bool,
    /// What `direct` costs by the model.
    pub direct: Costs,
    /// What `broadcast` costs by the model.
    pub broadcast: Costs,
}

/// What a mode costs by the model of `auto`, which looks nobody up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Costs {
    /// Gateways that get a frame.
    pub gateways: u64,
    /// Work of the broker, in nanoseconds of a core.
    pub broker_ns: u64,
    /// Bytes on links to gateways.
    pub link_bytes: u64,
    /// Work of all gateways together, in nanoseconds of a core.
    pub gateway_ns: u64,
    /// All of it in nanoseconds of a core.
    pub total_ns: u64,
}

impl From<Cost> for Costs {
    fn from(cost: Cost) -> Self {
        let Cost { gateways, broker_ns, link_bytes, gateway_ns } = cost;
        Self { gateways, broker_ns, link_bytes, gateway_ns, total_ns: cost.total_ns() }
    }
}

/// The size of a frame without labels, trace id and the like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameBytes {
    /// Of its header, lists included.
    pub header: usize,
    /// Of its payload.
    pub payload: usize,
}

/// As in a receipt of stage `routed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Users with a gateway that takes it.
    pub sent: usize,
    /// Users without a gateway.
    pub offline: usize,
    /// Users on the except list, or whose gateways can have no match.
    pub filtered: usize,
    /// Users whose gateways have no room.
    pub dropped: usize,
    /// Users that a broadcast does not look up.
    pub unknown: usize,
    /// Gateways that take it.
    pub gateways: usize,
}

/// Users of the list by what becomes of them, in whichever mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FateCounts {
    /// See [`Fate`].
    pub sent: usize,
    /// See [`Fate`].
    pub may: usize,
    /// See [`Fate`].
    pub offline: usize,
    /// See [`Fate`].
    pub filtered: usize,
    /// See [`Fate`].
    pub dropped: usize,
}

/// What becomes of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// A gateway would be sent it for this user.
    Sent,
    /// So it would, and asks each connection of the user whether the selector matches: the broker
    /// knows of a gateway's connections together only.
    May,
    /// No gateway would be.
    Offline,
    /// It is not for this user: on the except list, or no gateway of the user can have a match.
    Filtered,
    /// A gateway would be, and has no room.
    Dropped,
}

/// A gateway, its slot in the route table, and what it would be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewaySeen {
    /// Place of its slot in the route table.
    pub slot: usize,
    /// The life of the gateway process, in hexadecimal.
    pub incarnation: String,
    /// `filling`, `live`, `suspended` or `dead`.
    pub state: String,
    /// Its link, if it has one.
    pub link: Option<LinkSeen>,
    /// Users it has registered in the namespace.
    pub users: usize,
    /// Users it has registered in all namespaces.
    pub users_in_all: usize,
    /// Tags it has declared in all namespaces, those that are not kept included.
    pub tags: usize,
    /// Whether tags are agreed on with it.
    pub tags_agreed: bool,
    /// Whether the broker does not keep all of its tags, so that it counts as having every tag.
    pub counts_as_every_tag: bool,
    /// The selector's terms, each once, and whether it has declared them; empty without a selector.
    pub terms: Vec<Term>,
    /// Users of the list that it holds, those on the except list left out.
    pub holds: usize,
    /// What it would be sent.
    pub frame: Option<FrameSeen>,
    /// What becomes of that, or why it would be sent nothing.
    pub outcome: Outcome,
}

/// A gateway's link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSeen {
    /// Its address, if the transport knows.
    pub peer: Option<String>,
    /// Name of the credential it has shown.
    pub holder: String,
    /// Shard of the broker that serves it.
    pub shard: u16,
    /// Bytes of messages that wait in its outbox.
    pub waiting_bytes: usize,
    /// Bytes that may.
    pub waiting_bytes_max: usize,
}

/// A term of a selector at a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// The tag.
    pub tag: String,
    /// Whether the gateway has declared it.
    pub declared: bool,
}

/// What a gateway would be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameSeen {
    /// Users in its list.
    pub users: usize,
    /// Whether it gets lists and selector unchanged, and finds out by itself whom it has.
    pub whole: bool,
    /// Its size.
    pub bytes: FrameBytes,
}

/// What becomes of a message at a gateway, or why it is sent nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is put into the outbox of its link.
    Sent,
    /// That has no room.
    OutboxFull,
    /// What waits there has waited too long.
    OutboxAge,
    /// It answers and has no link any more.
    NoLink,
    /// Its credential has no right to the namespace.
    NotPermitted,
    /// Its snapshot is still coming in.
    Filling,
    /// Its link is lost, and it may come back.
    Suspended,
    /// It is gone.
    Gone,
    /// Tags are not agreed on with it.
    TagsNotAgreed,
    /// By what it has declared no connection of it can match: it is sent nothing, but for a
    /// broadcast.
    NoMatch,
    /// It has nobody whom it is for.
    NotConcerned,
    /// It changed while it was looked at.
    Changed,
}

impl Outcome {
    /// The reason, in words for a person.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::OutboxFull => {
                "dropped: no room in its outbox, as it reads too slowly or the frame is too large"
            }
            Self::OutboxAge => "dropped: what waits for it waits too long, as it reads too slowly",
            Self::NoLink => "not sent: its link has just ended",
            Self::NotPermitted => "not sent: its credential has no right to this namespace",
            Self::Filling => "not sent: it is still declaring its users",
            Self::Suspended => "not sent: its link is lost, and it may come back",
            Self::Gone => "not sent: it is gone, and its users are being forgotten",
            Self::TagsNotAgreed => "not sent: tags are not agreed on with it",
            Self::NoMatch => "no connection of it can match, by the tags it declared",
            Self::NotConcerned => "not sent: it has nobody whom it is for",
            Self::Changed => "not known: it changed while it was looked at; ask again",
        }
    }
}

/// A user of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSeen {
    /// Who.
    pub uid: UserId,
    /// What becomes of the user.
    pub fate: Fate,
    /// Whether the user is on the except list; then gateways are not looked for.
    pub excepted: bool,
    /// Gateways that hold the user, in any state: at most
    /// [`HOLDERS_SHOWN_MAX`](super::HOLDERS_SHOWN_MAX). None: registered at no gateway of this
    /// broker.
    pub gateways: Vec<HolderSeen>,
    /// Those that are not shown for being too many.
    pub gateways_more: usize,
}

/// A gateway that holds a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderSeen {
    /// Place of its slot in the route table.
    pub slot: usize,
    /// What becomes of the message there, for this user.
    pub outcome: Outcome,
}
