//! Hop times (6.10): when a message with TRACE passed where, at the end of a receipt or report.

use crate::code::TraceHop;
use crate::error::Malformed;
use crate::limits::TRACE_HOPS_MAX;
use crate::list::{Item, List};
use crate::read::{Reader, u16_at, u32_at, u64_at};
use crate::write::Writer;

/// Bytes of one hop time. Its time comes first.
pub const HOP_TIME_BYTES: usize = 32;

/// A moment by the wall clock of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HopTime {
    /// Microseconds since 1970-01-01 00:00 UTC; not 0.
    pub time_us: u64,
    /// Whose clock it is: a broker's number, a gateway's incarnation.
    pub process: u64,
    /// Incarnation of the gateway it is about; 0 = of none.
    pub gateway: u64,
    /// What was passed.
    pub hop: TraceHop,
}

/// The hop times of a frame, with flag TRACE; without any, that flag is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HopTimes<'a> {
    /// Further ones that were known and had no room. Written only if there are any `times`.
    pub left_out: u32,
    /// At most `trace_hops_max`.
    pub times: List<'a, HopTime>,
}

impl<'a> Item<'a> for HopTime {
    fn cut(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (item, rest) = bytes.split_first_chunk::<HOP_TIME_BYTES>()?;
        let (time_us, process, gateway) = (u64_at(item, 0), u64_at(item, 8), u64_at(item, 16));
        Some((Self { time_us, process, gateway, hop: TraceHop(item[24]) }, rest))
    }
}

impl<'a> HopTimes<'a> {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.times.is_empty()
    }

    /// Those of a frame that has flag TRACE, or not.
    pub(super) fn read(reader: &mut Reader<'a>, has_flag: bool) -> Result<Self, Malformed> {
        if !has_flag {
            return Ok(Self::default());
        }
        let head = reader.take_array::<8>("the head of hop times")?;
        let count = u16_at(head, 0);
        let bytes = reader.take("hop times", u64::from(count) * HOP_TIME_BYTES as u64)?;
        reader.reserved(u16_at(head, 2))?;
        reader.not_zero("FRAME-9", "count of hop times", count)?;
        let value = ("count of hop times", u64::from(count));
        reader.at_most("FRAME-9", value, ("trace_hops_max", TRACE_HOPS_MAX))?;
        for item in bytes.as_chunks::<HOP_TIME_BYTES>().0 {
            reader.reserved(item[25])?;
            reader.reserved(u16_at(item, 26))?;
            reader.reserved(u32_at(item, 28))?;
            reader.not_zero("FRAME-9", "time of a hop", u64_at(item, 0))?;
            reader.registered(TraceHop(item[24]).is_registered(), "hop", item[24])?;
        }
        Ok(Self { left_out: u32_at(head, 4), times: List::wire(bytes, count.into()) })
    }

    pub(super) fn write(self, writer: &mut Writer<'_>) {
        let count = self.times.len();
        let limit = ("trace_hops_max", TRACE_HOPS_MAX);
        if count == 0 || !writer.within("count of hop times", count, limit) {
            return;
        }
        writer.count16(count).u16(0).u32(self.left_out);
        for HopTime { time_us, process, gateway, hop } in self.times {
            writer.u64(time_us).u64(process).u64(gateway);
            writer.u8(hop.0).u8(0).u16(0).u32(0);
        }
    }
}
