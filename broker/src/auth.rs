//! Who may link, and what a link may do: credentials from the settings become grants.
//!
//! Every configured token is compared in constant time with what a peer sent, so that the time of
//! an answer tells nothing about how much of a guess was right. Never: sockets, frames.

use std::sync::Arc;

use subtle::ConstantTimeEq;
use waybill_wire::code::{ErrorCode, Role};

use crate::config::BrokerConfig;

/// What a link may do after its HELLO.
#[derive(Clone, Debug)]
pub struct Grant {
    holder: Arc<str>,
    namespaces: Option<Arc<[u32]>>,
}

impl Grant {
    /// Name of the credential's holder, for logs.
    #[must_use]
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// Whether both come from the same credential.
    #[must_use]
    pub fn same_holder(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.holder, &other.holder)
    }

    /// Whether the link may publish to, register in or receive from this namespace.
    #[must_use]
    pub fn covers(&self, namespace: u32) -> bool {
        self.namespaces.as_ref().is_none_or(|allowed| allowed.contains(&namespace))
    }
}

struct Entry {
    token: Box<[u8]>,
    roles: Vec<Role>,
    grant: Grant,
}

/// The configured credentials.
pub struct Credentials {
    entries: Vec<Entry>,
    anybody: Grant,
}

impl Credentials {
    /// The tokens of a validated configuration.
    #[must_use]
    pub fn new(config: &BrokerConfig) -> Self {
        let entries = config.tokens.iter().map(|token| Entry {
            token: token.token.as_bytes().into(),
            roles: token.parsed_roles().unwrap_or_default(),
            grant: Grant {
                holder: token.name.as_str().into(),
                namespaces: token.namespaces.as_deref().map(Into::into),
            },
        });
        let anybody = Grant { holder: "anybody on this machine".into(), namespaces: None };
        Self { entries: entries.collect(), anybody }
    }

    /// What the credential in a HELLO allows its sender in that role. Without any configured
    /// token everything is granted: such a broker listens on loopback only.
    ///
    /// # Errors
    ///
    /// `bad_credential` if no token matches, `not_permitted` if it may not take the role.
    pub fn judge(&self, credential: &[u8], role: Role) -> Result<Grant, ErrorCode> {
        if self.entries.is_empty() {
            return Ok(self.anybody.clone());
        }
        let mut found = None;
        for entry in &self.entries {
            if bool::from(entry.token.ct_eq(credential)) {
                found = Some(entry);
            }
        }
        let entry = found.ok_or(ErrorCode::BAD_CREDENTIAL)?;
        if entry.roles.contains(&role) {
            Ok(entry.grant.clone())
        } else {
            Err(ErrorCode::NOT_PERMITTED)
        }
    }
}
