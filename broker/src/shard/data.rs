//! Data links of gateways: messages go by the link of the shard that reads them (6.13).
//!
//! What this shard has for the gateway has gone by the control link until now. So a new data link
//! gets messages at once, and writes none before the gateway has taken in what it was sent by the
//! control link: a *fence* goes to that link behind all mail for it, and is passed when every
//! message before it has left the outbox and a PING after them is answered (promise 2).

use waybill_wire::code::{ErrorCode, Kind, capability};
use waybill_wire::error::{Breach, Violation};
use waybill_wire::frame::{Frame, Hello};

use super::link::{Fault, Life, Part, RoleState, refused};
use super::receipts::Reports;
use super::{Core, Links};
use crate::auth::Grant;
use crate::io::{LinkId, Output};
use crate::limits::LINGER_MS;
use crate::mail::{Mail, Writer};
use crate::outbox::Mark;
use crate::shared::sessions_open::{Joining, NotJoined};

/// What a data link is.
pub(super) struct DataState {
    pub(super) session: u64,
    pub(super) number: u64,
    pub(super) incarnation: u64,
    pub(super) reports: Reports,
}

/// A data link that waits for what its shard has sent by this link.
pub(super) struct Fence {
    data: Writer,
    /// Messages that had come into the outbox.
    mark: Mark,
    /// Messages that had been given to the transport when all of these were.
    handed: Option<u64>,
}

impl Core {
    /// HELLO with DATA.
    pub(super) fn open_data(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        hello: &Hello<'_>,
        grant: &Grant,
    ) -> Result<RoleState, Fault> {
        let refuse = |code, words| Err(refused(code, Kind::HELLO, words));
        if self.shared.config.data_links_max == 0 {
            return refuse(ErrorCode::NOT_SUPPORTED, "this broker does not run data links");
        }
        let (session, incarnation) = (hello.session, hello.instance);
        let (number, capability) = (self.shared.next_session(), capability::LINKS);
        let joining = Joining { session, incarnation, grant, capability };
        let joined = self.shared.data_opened(joining, number, |capabilities| {
            part.capabilities = capabilities;
            self.place(part)
        });
        let joined = match joined {
            Ok(joined) => joined,
            Err(NotJoined::NoSession) => {
                let words = "no control link of this gateway is open for the session";
                return refuse(ErrorCode::NO_SESSION, words);
            }
            Err(NotJoined::TooMany) => {
                let words = "the gateway has as many data links as data_links_max allows";
                return refuse(ErrorCode::TOO_MANY_LINKS, words);
            }
        };
        let (control, data) = (joined.control, self.writer(part));
        if let Some((older, number)) = joined.older {
            self.replace_data(links, older.link);
            // Whichever of them the gateway meant to be the newer.
            self.tell_lost(links, control, number);
        }
        part.path = Some(incarnation);
        part.held = !self.shared.path_joined_by_data(incarnation, control, data);
        part.fenced = true;
        let mail = Mail::Fence { link: control.link, data };
        self.outputs.push_back(Output::Mail { to: control.shard, mail });
        let reports = Reports::default();
        Ok(RoleState::Data(Box::new(DataState { session, number, incarnation, reports })))
    }

    /// The gateway takes in nothing more from an older data link of the same shard (LNK-5).
    fn replace_data(&mut self, links: &mut Links, older: LinkId) {
        let Some(mut link) = links.remove(older) else { return };
        let words = "a newer data link to this shard took its place";
        self.fault(links, &mut link.part, refused(ErrorCode::SUPERSEDED, Kind(0), words));
        if link.part.life != Life::Gone {
            links.insert(older, link);
        }
    }

    /// A frame on a data link, where only reports belong (LNK-4).
    pub(super) fn pass_data(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        frame: &Frame<'_>,
    ) -> Result<(), Fault> {
        match frame {
            Frame::Report(report) => {
                self.report(links, part, report);
                Ok(())
            }
            // Never answered (SEC-18).
            Frame::Error(_) => Ok(()),
            other => {
                let (kind, reference) = (other.kind(), other.reference());
                let (code, what) = (ErrorCode::UNEXPECTED_FRAME, Breach::Words(NOT_HERE));
                Err(Violation { code, kind, reference, what }.into())
            }
        }
    }

    /// A data link ends. If its session goes on, the control link takes its messages over, and the
    /// gateway is told before the first of them (LNK-7): what waits here would come too late.
    pub(super) fn data_left(&mut self, links: &mut Links, part: &mut Part, mut data: DataState) {
        self.reports_lost(links, &mut data.reports);
        let Some(control) = self.shared.data_closed(data.session, data.number) else { return };
        self.abandon(part);
        self.tell_lost(links, control, data.number);
    }

    fn tell_lost(&mut self, links: &mut Links, Writer { shard, link }: Writer, number: u64) {
        if shard == self.id {
            self.data_lost(links, link, number);
        } else {
            let mail = Mail::DataLost { link, number };
            self.outputs.push_back(Output::Mail { to: shard, mail });
        }
    }

    pub(super) fn data_lost(&mut self, links: &mut Links, control: LinkId, number: u64) {
        let Some(link) = links.find_mut(control) else { return };
        if link.part.life == Life::Open {
            let words = "a data link has ended; its shard sends by this link again";
            link.part.refuse((Kind(0), number), ErrorCode::DATA_LINK_LOST, words);
            self.touch(&mut link.part);
        }
    }

    /// The control link of a session ends, and with it its data links (LNK-8).
    pub(super) fn end_data_links(&mut self, session: u64) {
        for Writer { shard, link } in self.shared.session_closed(session) {
            self.outputs.push_back(Output::Mail { to: shard, mail: Mail::SessionEnded { link } });
        }
    }

    pub(super) fn session_ended(&mut self, links: &mut Links, data: LinkId) {
        let Some(mut link) = links.remove(data) else { return };
        let fault = refused(ErrorCode::NO_SESSION, Kind(0), "its control link has ended");
        self.dismiss(links, &mut link.part, fault, LINGER_MS);
        if link.part.fenced {
            // Nobody will say any more that what came before was taken in.
            self.abandon(&mut link.part);
            self.touch(&mut link.part);
        }
        links.insert(data, link);
    }

    /// A shard has a data link now, and has sent messages to this link before.
    pub(super) fn fence(&mut self, links: &mut Links, control: LinkId, data: Writer) {
        // If it has gone its session has ended, and the data link will hear of that.
        let Some(link) = links.find_mut(control) else { return };
        // What waits for an older data link of that shard waits for nothing.
        link.part.fences.retain(|fence| fence.data.shard != data.shard);
        let mark = link.part.outbox.entered();
        link.part.fences.push(Fence { data, mark, handed: None });
        self.check_fences(&mut link.part);
    }

    /// Passes fences, and asks for what they wait for.
    pub(super) fn check_fences(&mut self, part: &mut Part) {
        if part.fences.is_empty() {
            return;
        }
        let (handed, confirmed) = (part.handed, part.confirmed);
        for fence in &mut part.fences {
            if fence.handed.is_none() && part.outbox.has_left(fence.mark) {
                fence.handed = Some(handed);
            }
        }
        let passed = |fence: &mut Fence| fence.handed.is_some_and(|handed| handed <= confirmed);
        for Fence { data: Writer { shard, link }, .. } in part.fences.extract_if(.., passed) {
            self.outputs.push_back(Output::Mail { to: shard, mail: Mail::Passed { link } });
        }
        if part.fences.iter().any(|fence| fence.handed.is_some()) {
            self.ask_now(part);
        }
    }

    /// What the gateway was sent by its control link has been taken in.
    pub(super) fn passed(&mut self, links: &mut Links, data: LinkId) {
        if let Some(link) = links.find_mut(data) {
            link.part.fenced = false;
            self.touch(&mut link.part);
        }
    }
}

const NOT_HERE: &str = "a data link carries messages and reports; this belongs on the control link";
