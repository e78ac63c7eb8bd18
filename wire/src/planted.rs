//! Bugs on purpose: the test of the simulator, which has to find each of them.
//!
//! Without the feature `planted`, which only the simulator's tests turn on, [`is`] is a constant
//! `false` and no bug can be planted. What carries one out (a field, a function) may be there all
//! the same, and nothing reaches it. With the feature, a thread plants one bug for itself.

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
    /// A user's message that moves to another link does not say that it is sent again.
    UnmarkedMove,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::LateUnregister,
        Self::ReusedSlot,
        Self::HalfSweptResume,
        Self::LostDropCount,
        Self::DuplicateAfterResend,
        Self::WrongNarrowing,
        Self::ResumeAfterDeath,
        Self::StaleDigest,
        Self::UnmarkedMove,
    ];
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
