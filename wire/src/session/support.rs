//! What an end of this draft does not run, although its layout is fixed (SES-5, SES-7).

use super::{Fault, Refusal};
use crate::code::{Class, ErrorCode, Kind, Level, Role, capability};
use crate::frame::Hello;
use crate::limits::DRAFT;
use crate::message::Message;

/// Bits of all capabilities that have behaviour in this draft. A broker answers a HELLO with those
/// offered that it runs (SES-8).
pub const CAPABILITIES: u64 = capability::RESUME
    | capability::GROUPS
    | capability::PRESENCE
    | capability::REPORTS
    | capability::OFFLINE
    | capability::TRACE
    | capability::FILTERS
    | capability::TAGS
    | capability::LINKS
    | capability::FRAGMENTS;

/// Judges what a broker of this draft can judge of a HELLO without its settings: the version and
/// the features asked for. The draft to speak.
///
/// # Errors
/// `no_common_version`, or `not_supported` for a leaf, an admin, or a data link of one that is no
/// gateway.
pub fn judge(hello: &Hello<'_>) -> Result<u16, Fault> {
    let draft = u16::from(DRAFT);
    if !(hello.version_min..=hello.version_max).contains(&draft) {
        let detail = "this broker speaks draft 1 only";
        return Err(Fault::refuse_hello(ErrorCode::NO_COMMON_VERSION, detail));
    }
    let missing = if matches!(hello.role, Role::LEAF | Role::ADMIN) {
        "roles leaf and admin do not run in this draft"
    } else if hello.data && hello.role != Role::GATEWAY {
        "data links are for gateways"
    } else {
        return Ok(draft);
    };
    let (code, kind) = (ErrorCode::NOT_SUPPORTED, Kind::HELLO);
    Err(Refusal { code, kind, detail: missing, ..Refusal::default() }.into())
}

/// The capability without which frames of this kind are `not_supported`, where the registry does
/// not say that they are so anyway; no bits for others. Where a role does not agree on it
/// (`tags` of a producer) it is asked whether the broker runs it.
#[must_use]
pub const fn needed_for(kind: Kind) -> u64 {
    match kind {
        Kind::TAG_DELTA | Kind::TAG => capability::TAGS,
        Kind::FILTER => capability::FILTERS,
        Kind::FRAGMENT => capability::FRAGMENTS,
        _ => 0,
    }
}

/// What of a message an end that runs these capabilities does not run, in words for a person;
/// `None` if it can serve it.
#[must_use]
pub fn missing_for(message: &Message<'_>, runs: u64) -> Option<&'static str> {
    if message.class == Class::STORED || message.history.is_some() {
        Some("stored messages do not run in this draft")
    } else if message.level == Level::ACKNOWLEDGED {
        Some("level acknowledged does not run in this draft")
    } else if message.selector.is_some() && runs & capability::TAGS == 0 {
        Some("selectors need capability tags, which does not run here")
    } else if message.fragmented.is_some() && runs & capability::FRAGMENTS == 0 {
        Some("messages in fragments need capability fragments, which was not agreed on")
    } else {
        None
    }
}
