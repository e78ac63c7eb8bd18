//! The digest of what a gateway declared (5.3): a sum, so that it can be kept up to date with each
//! registration and each tag that comes or goes, in any order.

/// One registration (DIG-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Registered {
    /// Tenant.
    pub namespace: u32,
    /// The user.
    pub uid: u64,
    /// Device class.
    pub device_class: u8,
    /// Login number.
    pub login: u64,
}

/// Digest of a set of registrations and tags; `default()` is that of none.
///
/// It counts what it is told: adding what is there already, or removing what is not, is for the
/// owner of the set to leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Digest(u64);

impl Digest {
    /// Takes in a registration that was not in the set.
    pub fn add(&mut self, registered: Registered) {
        self.0 = self.0.wrapping_add(term(registered));
    }

    /// Takes out a registration that was in the set.
    pub fn remove(&mut self, registered: Registered) {
        self.0 = self.0.wrapping_sub(term(registered));
    }

    /// Takes in a declared tag that was not in the set (DIG-3).
    pub fn add_tag(&mut self, namespace: u32, text: &str) {
        self.0 = self.0.wrapping_add(tag(namespace, text));
    }

    /// Takes out a declared tag that was in the set.
    pub fn remove_tag(&mut self, namespace: u32, text: &str) {
        self.0 = self.0.wrapping_sub(tag(namespace, text));
    }

    /// Adds the digest of another set that shares nothing with this one.
    pub fn merge(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }

    /// As it stands in BARRIER and IN_EFFECT.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl FromIterator<Registered> for Digest {
    fn from_iter<I: IntoIterator<Item = Registered>>(registrations: I) -> Self {
        let mut digest = Self::default();
        registrations.into_iter().for_each(|registered| digest.add(registered));
        digest
    }
}

fn term(Registered { namespace, uid, device_class, login }: Registered) -> u64 {
    let place = u64::from(namespace) << 8 | u64::from(device_class);
    let inner = mix(place.wrapping_add(0x9e37_79b9_7f4a_7c15));
    mix(uid.wrapping_add(mix(login.wrapping_add(inner))))
}

/// What a declared tag adds to the digest (DIG-3).
#[must_use]
pub fn tag(namespace: u32, text: &str) -> u64 {
    let place = u64::from(namespace) << 8 | text.len() as u64;
    let mut hash = mix(place.wrapping_add(0x6a09_e667_f3bc_c909));
    for piece in text.as_bytes().chunks(8) {
        let mut word = [0; 8];
        word[..piece.len()].copy_from_slice(piece);
        hash = mix(u64::from_le_bytes(word).wrapping_add(hash));
    }
    hash
}

/// Finaliser of `SplitMix64` (5.3): spreads neighbouring numbers over all 64 bits, one to one.
#[must_use]
pub const fn mix(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}
