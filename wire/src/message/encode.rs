//! Writing a message from its fields.

use super::{Message, MessageHead};
use crate::code::{Kind, flags};
use crate::error::Unencodable;
use crate::limits::{EXCEPT_MAX, EXTENSIONS_MAX, LABEL_BYTES_MAX, LABELS_MAX, TARGETS_MAX};
use crate::limits::{EXTENSION_BYTES_MAX, SELECTOR_BYTES_MAX};
use crate::read::padding_bytes;
use crate::targets::Uids;
use crate::write::Writer;

impl MessageHead<'_> {
    /// Appends a whole PUBLISH.
    ///
    /// # Errors
    /// The first rule that a receiver would find broken; nothing was written then.
    pub fn encode_publish<'t>(
        &self,
        targets: impl Into<Uids<'t>>,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Unencodable> {
        self.encode(Kind::PUBLISH, targets, payload, out)
    }

    /// Appends a whole UPLINK.
    ///
    /// # Errors
    /// The first rule that a receiver would find broken; nothing was written then.
    pub fn encode_uplink(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Unencodable> {
        self.encode(Kind::UPLINK, Uids::default(), payload, out)
    }

    /// Appends a whole frame of `kind`: PUBLISH, DELIVER, UPLINK or OFFLINE.
    ///
    /// # Errors
    /// The first rule that a receiver would find broken; nothing was written then.
    pub fn encode<'t>(
        &self,
        kind: Kind,
        targets: impl Into<Uids<'t>>,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Unencodable> {
        self.write(kind, targets.into(), out).finish(payload, payload.len())
    }

    /// Appends the header alone, for a payload of `payload_bytes` that the caller sends after it.
    ///
    /// # Errors
    /// The first rule that a receiver would find broken; nothing was written then.
    pub fn encode_header<'t>(
        &self,
        kind: Kind,
        targets: impl Into<Uids<'t>>,
        payload_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Unencodable> {
        self.write(kind, targets.into(), out).finish(&[], payload_bytes)
    }

    fn flags(&self) -> u16 {
        use flags::message::*;
        [
            (self.resend, RESEND),
            (self.everyone, EVERYONE),
            (self.except_self, EXCEPT_SELF),
            (self.origin.is_some(), ORIGIN),
            (self.trace.is_some(), TRACE),
            (self.conflate.is_some(), CONFLATE),
            (self.sender.is_some(), SENDER),
            (self.part.is_some(), PART),
            (self.content.is_some(), CONTENT),
            (self.fragmented.is_some(), FRAGMENTED),
            (self.history.is_some(), HISTORY),
            (!self.labels.is_empty(), LABELS),
            (self.selector.is_some(), SELECTOR),
            (!self.except.is_empty(), EXCEPT),
            (!self.extensions.is_empty(), EXTENSIONS),
        ]
        .into_iter()
        .filter(|(present, _)| *present)
        .fold(0, |set, (_, flag)| set | flag)
    }

    fn handling(&self) -> u8 {
        let Self { mode, class, level, priority, .. } = self;
        mode.0 & 3 | (class.0 & 3) << 2 | (level.0 & 3) << 4 | priority.0 << 6
    }

    fn write<'o>(&self, kind: Kind, targets: Uids<'_>, out: &'o mut Vec<u8>) -> Writer<'o> {
        let mut writer = Writer::new(kind, self.flags(), out);
        if !writer.within("target_count", targets.len(), ("targets_max", TARGETS_MAX)) {
            return writer;
        }
        writer
            .count16(targets.len())
            .u8(self.handling())
            .u8(self.hops)
            .u16(0)
            .u64(self.sequence)
            .u32(self.namespace)
            .u32(self.ttl_ms);
        self.write_scalar_sections(&mut writer);
        if self.write_list_sections(&mut writer) {
            writer.uids(targets);
        }
        writer
    }

    fn write_scalar_sections(&self, writer: &mut Writer<'_>) {
        if let Some(origin) = self.origin {
            writer.u64(origin);
        }
        if let Some(trace) = self.trace {
            writer.bytes(trace);
        }
        if let Some(key) = self.conflate {
            writer.u64(key);
        }
        if let Some(sender) = self.sender {
            writer.u64(sender.uid).u64(sender.connection);
        }
        if let Some(part) = self.part {
            writer.u64(part.list).u32(part.index).u32(part.parts);
        }
        if let Some(content) = self.content {
            writer.u16(content.content_type.0).u16(content.encoding.0).u32(0);
        }
        if let Some(total) = self.fragmented {
            writer.u32(total).u32(0);
        }
        if let Some(history) = self.history {
            writer.u64(history.channel).u64(history.cursor);
        }
    }

    /// Whether all of them fit their lengths.
    fn write_list_sections(&self, writer: &mut Writer<'_>) -> bool {
        self.write_labels(writer)
            && self.write_selector(writer)
            && self.write_except(writer)
            && self.write_extensions(writer)
    }

    fn write_labels(&self, writer: &mut Writer<'_>) -> bool {
        let count = self.labels.len();
        if !writer.within("count of labels", count, ("labels_max", LABELS_MAX)) {
            return false;
        }
        let limit = ("label_bytes_max", LABEL_BYTES_MAX);
        if !self.labels.iter().all(|text| writer.within("length of a label", text.len(), limit)) {
            return false;
        }
        if count > 0 {
            let bytes: usize = self.labels.iter().map(|text| 1 + text.len()).sum();
            writer.count16(bytes).count16(count).u32(0);
            for text in self.labels {
                writer.count8(text.len()).bytes(text.as_bytes());
            }
            writer.pad();
        }
        true
    }

    fn write_selector(&self, writer: &mut Writer<'_>) -> bool {
        let Some(selector) = self.selector else { return true };
        let limit = ("selector_bytes_max", SELECTOR_BYTES_MAX);
        let bytes = selector.bytes();
        if !writer.within("bytes of SELECTOR", bytes.len(), limit) {
            return false;
        }
        writer.count16(bytes.len()).u16(0).u32(0).bytes(bytes).pad();
        true
    }

    fn write_except(&self, writer: &mut Writer<'_>) -> bool {
        let count = self.except.len();
        if !writer.within("count of EXCEPT", count, ("except_max", EXCEPT_MAX)) {
            return false;
        }
        if count > 0 {
            writer.count16(count).u16(0).u32(0).uids(self.except);
        }
        true
    }

    fn write_extensions(&self, writer: &mut Writer<'_>) -> bool {
        let count = self.extensions.len();
        if !writer.within("count of EXTENSIONS", count, ("extensions_max", EXTENSIONS_MAX)) {
            return false;
        }
        let padded = |bytes: usize| 8 + bytes + padding_bytes(bytes);
        let bytes = self.extensions.iter().map(|item| padded(item.data.len())).sum();
        let limit = ("extension_bytes_max", EXTENSION_BYTES_MAX);
        if !writer.within("bytes of EXTENSIONS", bytes, limit) {
            return false;
        }
        if count > 0 {
            writer.count16(bytes).count16(count).u32(0);
            for item in self.extensions {
                writer.u16(item.extension_type).count16(item.data.len()).u32(0);
                writer.bytes(item.data).pad();
            }
        }
        true
    }
}

impl Message<'_> {
    /// Appends this message again, field by field.
    ///
    /// # Errors
    /// None for a message as it was decoded (CONV-5); a field changed since then may be refused.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        self.head().encode(self.kind, self.targets, self.payload, out)
    }
}
