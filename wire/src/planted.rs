//! Bugs on purpose: the test of the simulator, which has to find each of them.
//!
//! Without the feature `planted`, which no release has, [`is`] is a constant
//! `false` and no bug can be planted. What carries one out (a field, a function) may be there all
//! the same, and nothing reaches it. With the feature, a thread plants one bug for itself.
//!
//! A [`Fault`] is for the test of the bench: a broker process commits it on every n-th message, and
//! the bench has to see that one. Without the feature none is ever [`due`].

use std::str::FromStr;

/// A bug that can be planted. Each has one place in the code, where it asks [`is`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// A registration goes on to count after its gateway has removed it.
    LateUnregister,
    /// A slot is given away again before what pointed at it is gone.
    ReusedSlot,
    /// The sweep begins on a slot that is only suspended, and it is resumed.
    HalfSweptResume,
    /// A frame is dropped and not counted.
    LostDropCount,
    /// A message sent again is delivered again.
    DuplicateAfterResend,
    /// A gateway is sent a target that is not its own.
    WrongNarrowing,
    /// A session is resumed after its slot has died.
    ResumeAfterDeath,
    /// A digest is taken for right without having been compared.
    StaleDigest,
    /// A gateway's tags are counted as declared, and not kept to route by.
    LostTags,
    /// A gateway takes whoever is listed for one who matches.
    IgnoredSelector,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::LateUnregister,
        Self::ReusedSlot,
        Self::HalfSweptResume,
        Self::LostDropCount,
        Self::DuplicateAfterResend,
        Self::WrongNarrowing,
        Self::ResumeAfterDeath,
        Self::StaleDigest,
        Self::LostTags,
        Self::IgnoredSelector,
    ];
}

/// What is done to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It is not sent on, and said to be.
    Drop,
    /// It is sent on twice.
    Twice,
    /// It is sent to the gateway after the right one. Where that is the same, to the right one.
    Wrong,
}

/// A deed, and how often it is done. As text `drop:N`, `twice:N` or `wrong:N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is done.
    pub deed: Deed,
    /// The first message it is done to, counted from 1, and the distance to the next; not 0.
    pub every: u64,
}

impl FromStr for Fault {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once(':').and_then(|(deed, every)| {
            let deed = match deed {
                "drop" => Deed::Drop,
                "twice" => Deed::Twice,
                "wrong" => Deed::Wrong,
                _ => return None,
            };
            every.parse().ok().filter(|every| *every > 0).map(|every| Self { deed, every })
        });
        parsed.ok_or("a fault is drop:N, twice:N or wrong:N, with N at least 1")
    }
}

/// The fault of this process, and how many messages it has seen.
#[cfg(feature = "planted")]
static FAULT: std::sync::OnceLock<(Fault, std::sync::atomic::AtomicU64)> =
    std::sync::OnceLock::new();

/// Plants a fault in this process, once and for good; false if there is one already.
#[cfg(feature = "planted")]
#[must_use]
pub fn plant_fault(fault: Fault) -> bool {
    FAULT.set((fault, 0.into())).is_ok()
}

/// Counts a message that is being routed, and says what is to be done to it, if anything.
#[cfg(feature = "planted")]
#[must_use]
pub fn due() -> Option<Deed> {
    let (fault, seen) = FAULT.get()?;
    let number = seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
    number.is_multiple_of(fault.every).then_some(fault.deed)
}

/// What is to be done to the message that is being routed: nothing, without the feature `planted`.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn due() -> Option<Deed> {
    None
}

/// Whether this process commits a fault.
#[cfg(feature = "planted")]
#[must_use]
pub fn is_faulty() -> bool {
    FAULT.get().is_some()
}

/// Whether this process commits a fault: never, without the feature `planted`.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn is_faulty() -> bool {
    false
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug on this thread in the place of the one before it; `None` takes that out.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this bug is planted on this thread.
#[cfg(feature = "planted")]
#[must_use]
pub fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this bug is planted on this thread: never, without the feature `planted`.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn is(_bug: Bug) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_text() {
        assert_eq!("drop:7".parse(), Ok(Fault { deed: Deed::Drop, every: 7 }));
        assert_eq!("twice:1".parse(), Ok(Fault { deed: Deed::Twice, every: 1 }));
        assert_eq!("wrong:1000000".parse(), Ok(Fault { deed: Deed::Wrong, every: 1_000_000 }));
        for text in ["drop", "drop:", "drop:0", "lose:3", "drop:-1", ""] {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }
}
