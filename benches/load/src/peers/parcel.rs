//! What is published to a gateway's channel: for which of its users, and the payload.
//!
//! Layout: count of UIDs (u16), the UIDs (u64 each), the payload; little-endian. A gateway of a
//! real system needs the list as much as this one does.

const COUNT_BYTES: usize = 2;
const UID_BYTES: usize = 8;

/// Replaces `out` with what goes before the payload.
///
/// # Panics
/// 65,536 UIDs or more; no scenario has groups of that size.
pub(super) fn head(out: &mut Vec<u8>, uids: &[u64]) {
    let count = u16::try_from(uids.len()).expect("groups have fewer than 65,536 users");
    out.clear();
    out.extend_from_slice(&count.to_le_bytes());
    for uid in uids {
        out.extend_from_slice(&uid.to_le_bytes());
    }
}

/// The UIDs and the payload; `None` if it is no parcel.
pub(super) fn open(parcel: &[u8]) -> Option<(impl Iterator<Item = u64> + '_, &[u8])> {
    let (count, rest) = parcel.split_first_chunk::<COUNT_BYTES>()?;
    let bytes = usize::from(u16::from_le_bytes(*count)) * UID_BYTES;
    let (uids, payload) = rest.split_at_checked(bytes)?;
    let (uids, _none) = uids.as_chunks::<UID_BYTES>();
    Some((uids.iter().map(|uid| u64::from_le_bytes(*uid)), payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parcel_opens_to_what_was_put_in() {
        let mut parcel = vec![9; 3];
        head(&mut parcel, &[1_000_000_001, 7]);
        assert_eq!(parcel.len(), 18);
        parcel.extend_from_slice(b"payload");
        let (uids, payload) = open(&parcel).expect("a parcel");
        assert_eq!(uids.collect::<Vec<_>>(), [1_000_000_001, 7]);
        assert_eq!(payload, b"payload");
        assert!(open(&parcel[..17]).is_none() && open(&[1]).is_none());
    }
}
