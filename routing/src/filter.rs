//! Filters of consumers: whether an expression over header fields is true for a frame (5.2 of the
//! contract), without an allocation.

use waybill_wire::code::{ContentType, Event, Kind, Priority};
use waybill_wire::filter::{Expression, Node, Term};
use waybill_wire::message::{Labels, Message};

/// The fields of a frame that is going to a consumer. Those that it does not have are `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields<'a> {
    /// UPLINK, PRESENCE or OFFLINE.
    pub kind: Kind,
    /// Who sent it, whom it is about, or who was offline: in rising order.
    pub uids: &'a [u64],
    /// What the message is about.
    pub labels: Labels<'a>,
    /// Of the message.
    pub priority: Option<Priority>,
    /// Of the message.
    pub content: Option<ContentType>,
    /// What happened.
    pub event: Option<Event>,
    /// Of the registration.
    pub device_class: Option<u8>,
}

impl<'a> Fields<'a> {
    /// Of a message that goes to a consumer for these users, in rising order: the sender of an
    /// UPLINK, who was offline for an OFFLINE.
    #[must_use]
    pub fn of_message(kind: Kind, uids: &'a [u64], message: &Message<'a>) -> Self {
        Self {
            kind,
            uids,
            labels: message.labels,
            priority: Some(message.priority),
            content: message.content.map(|content| content.content_type),
            event: None,
            device_class: None,
        }
    }

    /// Of what is told of one user's presence.
    #[must_use]
    pub fn of_presence(event: Event, uid: &'a u64, device_class: u8) -> Self {
        Self {
            kind: Kind::PRESENCE,
            uids: std::slice::from_ref(uid),
            labels: Labels::default(),
            priority: None,
            content: None,
            event: Some(event),
            device_class: Some(device_class),
        }
    }
}

/// Whether the expression is true for a frame. Looks at no more terms than it has, and for a UID
/// range at as many UIDs as a list can be halved.
#[must_use]
pub fn is_true(expression: &Expression, fields: &Fields<'_>) -> bool {
    let (value, rest) = judge(expression.nodes(), fields, true);
    debug_assert!(rest.is_empty(), "an expression is one node with its operands");
    value
}

/// The value of the first node, and the nodes behind its operands. If it `counts` for nothing its
/// terms are passed over.
fn judge<'n>(nodes: &'n [Node], fields: &Fields<'_>, counts: bool) -> (bool, &'n [Node]) {
    let (first, mut rest) = nodes.split_first().expect("each operator has its operands");
    let mut row = |operands: u8, all: bool| {
        let mut value = all;
        for _ in 0..operands {
            let (operand, behind) = judge(rest, fields, counts && value == all);
            rest = behind;
            if value == all {
                value = operand;
            }
        }
        (value, rest)
    };
    match first {
        Node::Term(term) => (counts && holds(term, fields), rest),
        Node::And(operands) => row(*operands, true),
        Node::Or(operands) => row(*operands, false),
        Node::Not => {
            let (value, rest) = judge(rest, fields, counts);
            (!value, rest)
        }
    }
}

fn holds(term: &Term, fields: &Fields<'_>) -> bool {
    match term {
        Term::Kind(kind) => fields.kind == *kind,
        Term::Uid(range) => {
            let first = fields.uids.partition_point(|uid| uid < range.start());
            fields.uids.get(first).is_some_and(|uid| uid <= range.end())
        }
        Term::Label(label) => fields.labels.iter().any(|it| it == &**label),
        Term::LabelBegins(begin) => fields.labels.iter().any(|it| it.starts_with(&**begin)),
        Term::Priority(priority) => fields.priority == Some(*priority),
        Term::Content(content) => fields.content == Some(*content),
        Term::Event(event) => fields.event == Some(*event),
        Term::DeviceClass(range) => fields.device_class.is_some_and(|class| range.contains(&class)),
    }
}
