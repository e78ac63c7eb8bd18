//! HELLO: who may link, in which role, and what WELCOME tells.

use std::collections::BTreeMap;
use std::time::Duration;

use waybill_wire::assembly::Assembly;
use waybill_wire::code::{ErrorCode, Kind, Role, capability};
use waybill_wire::frame::{Frame, Hello, Welcome};
use waybill_wire::limits::PAYLOAD_BYTES_MAX;
use waybill_wire::session::{Sequence, support};

use super::batch::RUNS_WHOLE;
use super::link::{Admission, ConsumerState, Fault, Life, Part, ProducerState, RoleState, refused};
use super::receipts::Receipts;
use super::standing::Standing;
use super::uplink::Owed;
use super::{Core, Links};
use crate::auth::Grant;
use crate::io::Output;
use crate::shared::sessions_open::Session;
use crate::shared::{ConsumerPlace, Place};
use crate::telemetry::count;

impl Core {
    /// The shard that a stranger wishes to be served by, if that is another one. It judges the
    /// HELLO; one that is to be refused for want of time is refused here.
    pub(super) fn other_shard(&self, part: &Part, hello: &Hello<'_>) -> Option<u16> {
        let is_first = part.admission == Admission::Stranger && part.life == Life::Open;
        let wanted = hello.wanted_shard;
        let exists = wanted != self.id && wanted < self.shared.config.shards;
        (is_first && exists && self.drain.is_none()).then_some(wanted)
    }

    /// Another shard takes the link up from its HELLO on. It finds a place there as one that comes
    /// anew, so that no shard has more strangers than it may.
    pub(super) fn pass_link_on(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        to: u16,
        data: Vec<u8>,
    ) {
        let (link, peer) = (part.id, part.peer.take());
        self.outputs.push_back(Output::HandOver { link, to, peer, data });
        self.forget(links, part);
    }

    pub(super) fn hello(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        hello: &Hello<'_>,
    ) -> Result<(), Fault> {
        let version = support::judge(hello).inspect_err(|_| self.count_refused())?;
        let grant = self.judge(hello).inspect_err(|_| self.count_refused())?;
        part.capabilities = hello.capabilities & self.capabilities();
        let admitted = if hello.data {
            self.open_data(links, part, hello, &grant)
        } else {
            self.admit(part, hello, grant.clone())
        };
        part.role = admitted.inspect_err(|_| self.count_refused())?;
        self.turn.begins_for_link(part.side());
        part.admission = Admission::Link;
        if hello.role == Role::GATEWAY {
            let config = &self.shared.config;
            part.outbox.set_policy(config.outbox_policy, config.outbox_age_max());
        }
        self.strangers_now -= 1;
        let (shard, link, role, holder) = (self.id, part.id.0, hello.role, grant.holder());
        tracing::info!(shard, link, %role, holder, instance = hello.instance, "link opens");
        let (session, resumed) = match &part.role {
            RoleState::Gateway(gateway) => (gateway.session, gateway.registration.is_resuming()),
            RoleState::Data(data) => (data.number, false),
            _ => (self.shared.next_session(), false),
        };
        let welcome = Welcome {
            resumed,
            state: self.state(),
            version,
            shard: self.id,
            session,
            capabilities: part.capabilities,
            broker: self.shared.instance,
            shards: self.shared.config.shards,
            keepalive_ms: self.shared.config.keepalive_ms,
            credit: 0,
            payload_max: u32::try_from(PAYLOAD_BYTES_MAX).unwrap_or(u32::MAX),
        };
        part.put(&Frame::Welcome(welcome));
        if resumed {
            Self::put_resumed(part);
        }
        self.put_state(part);
        let keepalive = Duration::from_millis(self.shared.config.keepalive_ms.into());
        part.session.accept(self.now, keepalive, hello.role);
        // What a producer asks for it asks of the broker, and offers nothing for it (TAG-12).
        let producer = hello.role == Role::PRODUCER;
        part.session.run(part.capabilities | if producer { RUNS_WHOLE } else { 0 });
        Ok(())
    }

    /// Of those with behaviour, what is switched on.
    fn capabilities(&self) -> u64 {
        let off = if self.shared.config.data_links_max == 0 { capability::LINKS } else { 0 };
        support::CAPABILITIES & !off
    }

    fn count_refused(&self) {
        count(&self.counters.hellos_refused, 1);
    }

    fn judge(&self, hello: &Hello<'_>) -> Result<Grant, Fault> {
        let no = |code, words| Err(refused(code, Kind::HELLO, words));
        if self.drain.is_some() {
            return no(ErrorCode::SHUTTING_DOWN, "this broker is shutting down");
        }
        match self.shared.credentials.judge(hello.credential, hello.role) {
            Ok(grant) => Ok(grant),
            // The same for none and for a wrong one (SEC-2).
            Err(ErrorCode::BAD_CREDENTIAL) => {
                no(ErrorCode::BAD_CREDENTIAL, "HELLO needs a token that this broker knows")
            }
            Err(code) => no(code, "this token does not allow this role"),
        }
    }

    fn admit(
        &mut self,
        part: &mut Part,
        hello: &Hello<'_>,
        grant: Grant,
    ) -> Result<RoleState, Fault> {
        let place = self.place(part);
        Ok(match hello.role {
            Role::PRODUCER => {
                self.shared.producer_opened();
                RoleState::Producer(Box::new(ProducerState {
                    instance: hello.instance,
                    grant,
                    sequence: Sequence::default(),
                    assembly: Assembly::default(),
                    standing: Standing::default(),
                    receipts: Receipts::default(),
                    unrouted: Vec::new(),
                }))
            }
            Role::GATEWAY => {
                if !self.shared.may_be(hello.instance, &grant) {
                    let words = "a gateway of this incarnation is linked with another token";
                    return Err(refused(ErrorCode::NOT_PERMITTED, Kind::HELLO, words));
                }
                let gateway = self.gateway_session(hello, grant)?;
                let slot = gateway.slot;
                let session = Session {
                    id: gateway.session,
                    incarnation: hello.instance,
                    place,
                    grant: gateway.grant.clone(),
                    capabilities: part.capabilities,
                    data: Vec::new(),
                };
                self.shared.gateway_opened(slot, session);
                let now = self.now;
                self.shared.readiness(|readiness| readiness.linked(now));
                RoleState::Gateway(Box::new(gateway))
            }
            _ => {
                let (instance, capabilities) = (hello.instance, part.capabilities);
                let consumer = ConsumerPlace::new(place, grant.clone(), instance, capabilities);
                self.shared.consumer_opened(consumer);
                RoleState::Consumer(Box::new(ConsumerState {
                    grant,
                    owed: Owed::default(),
                    filters: BTreeMap::new(),
                }))
            }
        })
    }

    pub(super) fn place(&self, part: &Part) -> Place {
        let (peer, room) = (part.peer.clone(), part.outbox.room().clone());
        let (tags, fragments) = (part.can(capability::TAGS), part.can(capability::FRAGMENTS));
        Place { shard: self.id, link: part.id, peer, room, tags, fragments }
    }
}
