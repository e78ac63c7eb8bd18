//! Login tokens: a signed text to an [`Identity`], and back for whoever issues them (WS-4).
//!
//! The algorithm is HS256 and comes from here, never from the token; the signature is checked
//! before any claim is believed. Time is passed in as seconds since 1970, so that a test or a
//! simulation decides what is expired. A token is never logged and never part of an error.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use waybill_wire::limits::CONNECTION_TAGS_MAX;
use waybill_wire::selector::is_tag;

/// Seconds by which the clocks of issuer and gateway may differ. They extend a token's life at both
/// ends: a connection ends at `exp` + this, the moment from which its token is refused too.
pub const LEEWAY_S: u64 = 60;

/// Who a connection belongs to, as its token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The tenant.
    pub namespace: u32,
    /// The user.
    pub uid: u64,
    /// Class of the device, 0 if the token names none.
    pub device_class: u8,
    /// Login number, 0 if the token has none.
    pub login: u64,
    /// Tags the connection has at its login (WS-16), each once, in rising order.
    pub tags: Box<[Box<str>]>,
    /// Seconds since 1970 at which the connection ends: `exp` and the leeway.
    pub expires_at: u64,
}

/// Why a token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not a JWT, another algorithm or key, a claim missing or of the wrong shape.
    #[error("the token is not valid")]
    Bad,
    /// Well signed, but its `nbf` is ahead of us by more than the leeway.
    #[error("the token is not valid yet")]
    Early,
    /// Well signed, but its time is over.
    #[error("the token has expired")]
    Expired,
    /// Well signed and in time, but for a namespace this gateway does not serve.
    #[error("the token is for a namespace that this gateway does not serve")]
    Foreign,
}

/// Checks tokens. Holds the key, ready for use; cheap to share, not to make.
pub struct Verifier {
    key: DecodingKey,
    validation: Validation,
    /// Sorted; empty = all.
    namespaces: Vec<u32>,
}

impl Verifier {
    /// A verifier for tokens signed with this secret, of any namespace.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // The claims of time are judged below, by the time passed in.
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        // The contract has no `aud`: a token that carries one for other services is still ours.
        validation.validate_aud = false;
        Self { key: DecodingKey::from_secret(secret), validation, namespaces: Vec::new() }
    }

    /// Refuses tokens of other namespaces than these, unless there are none: then all are served.
    #[must_use]
    pub fn only(mut self, namespaces: &[u32]) -> Self {
        self.namespaces = namespaces.to_vec();
        self.namespaces.sort_unstable();
        self
    }

    /// The identity a token stands for at `now_s` (seconds since 1970).
    ///
    /// # Errors
    ///
    /// [`TokenError`]; [`TokenError::Expired`] only for a token whose signature is right.
    pub fn verify(&self, token: &str, now_s: u64) -> Result<Identity, TokenError> {
        let token = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation)
            .map_err(|_| TokenError::Bad)?;
        // What a token calls critical must be understood (RFC 7515, 4.1.11), and nothing is.
        if token.header.crit.is_some() {
            return Err(TokenError::Bad);
        }
        let claims = token.claims;
        let uid = decimal(&claims.sub).ok_or(TokenError::Bad)?;
        if claims.nbf.is_some_and(|nbf| nbf.seconds() > now_s.saturating_add(LEEWAY_S)) {
            return Err(TokenError::Early);
        }
        let expires_at = claims.exp.seconds().saturating_add(LEEWAY_S);
        if now_s >= expires_at {
            return Err(TokenError::Expired);
        }
        let served = &self.namespaces;
        if !served.is_empty() && served.binary_search(&claims.ns).is_err() {
            return Err(TokenError::Foreign);
        }
        let tags: BTreeSet<Box<str>> =
            claims.tags.into_iter().map(String::into_boxed_str).collect();
        if tags.len() > CONNECTION_TAGS_MAX || !tags.iter().all(|tag| is_tag(tag)) {
            return Err(TokenError::Bad);
        }
        Ok(Identity {
            namespace: claims.ns,
            uid,
            device_class: claims.dev,
            login: claims.login,
            tags: tags.into_iter().collect(),
            expires_at,
        })
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

/// What [`mint`] writes into a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant<'a> {
    /// The tenant.
    pub namespace: u32,
    /// The user.
    pub uid: u64,
    /// Class of the device.
    pub device_class: u8,
    /// Login number, 0 for none.
    pub login: u64,
    /// Tags the connection has at its login.
    pub tags: &'a [&'a str],
    /// `exp`: seconds since 1970.
    pub expires_at: u64,
}

/// Signs a token. For those who issue tokens in Rust, the CLI and tests.
///
/// # Panics
///
/// Never: HMAC takes a key of any length and these claims are always JSON.
#[must_use]
pub fn mint(secret: &[u8], grant: Grant<'_>) -> String {
    let claims = Claims {
        sub: grant.uid.to_string(),
        exp: NumericDate::Whole(grant.expires_at),
        nbf: None,
        ns: grant.namespace,
        dev: grant.device_class,
        login: grant.login,
        tags: grant.tags.iter().map(|&tag| tag.to_owned()).collect(),
    };
    let key = EncodingKey::from_secret(secret);
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
        .expect("HMAC takes any key, and these claims are JSON")
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    exp: NumericDate,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<NumericDate>,
    #[serde(default)]
    ns: u32,
    #[serde(default)]
    dev: u8,
    #[serde(default)]
    login: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
}

/// RFC 7519 allows fractions of a second; some issuers write them.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(untagged)]
enum NumericDate {
    Whole(u64),
    Fraction(f64),
}

impl NumericDate {
    // A negative or absurd fraction saturates, and is then as expired, or as late, as can be.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn seconds(self) -> u64 {
        match self {
            Self::Whole(seconds) => seconds,
            Self::Fraction(seconds) => seconds as u64,
        }
    }
}

/// Digits alone: `parse` would take a sign.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::encode;

    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    const NOW: u64 = 1_800_000_000;

    fn signed(algorithm: Algorithm, claims: &serde_json::Value) -> String {
        encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(SECRET)).unwrap()
    }

    fn check(claims: &serde_json::Value, expected: Result<(u32, u64, u8, u64), TokenError>) {
        let token = signed(Algorithm::HS256, claims);
        let found = Verifier::new(SECRET).verify(&token, NOW);
        let found = found.map(|id| (id.namespace, id.uid, id.device_class, id.login));
        assert_eq!(found, expected, "{claims}");
    }

    #[test]
    fn ws_4_claims() {
        use serde_json::json;
        let bad = Err(TokenError::Bad);
        let exp = NOW + 1;
        check(&json!({"sub": "7", "exp": exp}), Ok((0, 7, 0, 0)));
        let all = json!({"sub": "18446744073709551615", "exp": exp, "ns": 4294967295u32, "dev": 255,
            "login": u64::MAX, "nbf": NOW, "aud": "others", "iss": "x", "roles": ["a"]});
        check(&all, Ok((u32::MAX, u64::MAX, 255, u64::MAX)));
        check(&json!({"sub": "7", "exp": exp as f64 + 0.5}), Ok((0, 7, 0, 0)));
        for sub in ["", "+7", "-7", "7 ", "0x7", "18446744073709551616", "seven", "٧"] {
            check(&json!({"sub": sub, "exp": exp}), bad);
        }
        check(&json!({"exp": exp}), bad);
        check(&json!({"sub": 7, "exp": exp}), bad);
        check(&json!({"sub": "7"}), bad);
        check(&json!({"sub": "7", "exp": exp.to_string()}), bad);
        check(&json!({"sub": "7", "exp": exp, "nbf": "soon"}), bad);
        check(&json!({"sub": "7", "exp": exp, "ns": -1}), bad);
        check(&json!({"sub": "7", "exp": exp, "ns": 4294967296u64}), bad);
        check(&json!({"sub": "7", "exp": exp, "dev": 256}), bad);
        check(&json!({"sub": "7", "exp": exp, "login": "1"}), bad);
        check(&json!(["7"]), bad);
    }

    #[test]
    fn ws_16_tags() {
        use serde_json::json;
        let tags = |tags: serde_json::Value| {
            let claims = json!({"sub": "7", "exp": NOW + 9, "tags": tags});
            let identity = Verifier::new(SECRET).verify(&signed(Algorithm::HS256, &claims), NOW);
            identity.map(|identity| identity.tags.into_iter().map(String::from).collect::<Vec<_>>())
        };
        assert_eq!(tags(json!([])), Ok(vec![]));
        let twice = json!(["vip", "group:42", "\u{7f51}\u{5173} ", "vip"]);
        let once = ["group:42", "vip", "\u{7f51}\u{5173} "].map(String::from);
        assert_eq!(tags(twice), Ok(once.into()));
        let numbered = |count| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>();
        assert_eq!(tags(json!(numbered(256))).map(|tags| tags.len()), Ok(256));
        let long = json!(["x".repeat(65)]);
        for wrong in [
            json!(numbered(257)),
            long,
            json!([""]),
            json!(["a\tb"]),
            json!(["\u{7f}"]),
            json!([7]),
            json!("vip"),
            json!({}),
            json!(null),
        ] {
            assert_eq!(tags(wrong.clone()), Err(TokenError::Bad), "{wrong}");
        }
        let grant = Grant { tags: &["vip", "geo:sh"], ..grant(7, NOW) };
        let identity = Verifier::new(SECRET).verify(&mint(SECRET, grant), NOW).unwrap();
        assert_eq!(identity.tags, ["geo:sh", "vip"].map(Box::from).into());
    }

    #[test]
    fn ws_4_times_have_a_leeway_of_60_seconds() {
        use serde_json::json;
        check(&json!({"sub": "7", "exp": NOW - 59}), Ok((0, 7, 0, 0)));
        check(&json!({"sub": "7", "exp": NOW - 60}), Err(TokenError::Expired));
        check(&json!({"sub": "7", "exp": -1.5}), Err(TokenError::Expired));
        check(&json!({"sub": "7", "exp": NOW + 9, "nbf": NOW + 60}), Ok((0, 7, 0, 0)));
        check(&json!({"sub": "7", "exp": NOW + 9, "nbf": NOW + 61}), Err(TokenError::Early));
        let token = mint(SECRET, grant(7, NOW));
        assert_eq!(Verifier::new(SECRET).verify(&token, NOW).unwrap().expires_at, NOW + 60);
    }

    fn grant(uid: u64, expires_at: u64) -> Grant<'static> {
        Grant { namespace: 3, uid, device_class: 2, login: 9, tags: &[], expires_at }
    }

    #[test]
    fn ws_4_only_hs256_and_only_our_key() {
        let verifier = Verifier::new(SECRET);
        let claims = serde_json::json!({"sub": "7", "exp": NOW + 9});
        for other in [Algorithm::HS384, Algorithm::HS512] {
            assert_eq!(verifier.verify(&signed(other, &claims), NOW), Err(TokenError::Bad));
        }
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let body = part(&claims.to_string());
        for none in ["none", "None", "NONE", "", "hs256"] {
            let head = part(&format!("{{\"typ\":\"JWT\",\"alg\":\"{none}\"}}"));
            for signature in ["", "x"] {
                let token = format!("{head}.{body}.{signature}");
                assert_eq!(verifier.verify(&token, NOW), Err(TokenError::Bad), "{none}");
            }
        }
        let mut critical = Header::new(Algorithm::HS256);
        critical.crit = Some(vec!["x".into()]);
        let critical = encode(&critical, &claims, &EncodingKey::from_secret(SECRET)).unwrap();
        assert_eq!(verifier.verify(&critical, NOW), Err(TokenError::Bad), "crit");
        let foreign = mint(b"another secret, of another issuer", grant(7, NOW + 9));
        assert_eq!(verifier.verify(&foreign, NOW), Err(TokenError::Bad));
        // An expired token of a stranger is bad: only the signature makes `exp` worth reading.
        let foreign = mint(b"another secret, of another issuer", grant(7, NOW - 900));
        assert_eq!(verifier.verify(&foreign, NOW), Err(TokenError::Bad));
        for garbage in ["", ".", "..", "a.b.c", "a.b.c.d", "\u{0}"] {
            assert_eq!(verifier.verify(garbage, NOW), Err(TokenError::Bad));
        }
    }

    #[test]
    fn a_token_of_a_namespace_that_is_not_served_is_refused() {
        let token = mint(SECRET, grant(7, NOW + 9));
        let verify = |served: &[u32]| Verifier::new(SECRET).only(served).verify(&token, NOW);
        assert_eq!(verify(&[]).unwrap().namespace, 3);
        assert_eq!(verify(&[9, 3, 5]).unwrap().namespace, 3);
        assert_eq!(verify(&[9, 5]), Err(TokenError::Foreign));
        // Whoever has no valid token is not told what is served here.
        let foreign = mint(b"another secret, of another issuer", grant(7, NOW + 9));
        let verifier = Verifier::new(SECRET).only(&[5]);
        assert_eq!(verifier.verify(&foreign, NOW), Err(TokenError::Bad));
    }

    #[test]
    fn every_changed_byte_of_a_token_is_noticed() {
        let verifier = Verifier::new(SECRET);
        let token = mint(SECRET, grant(7, NOW + 9));
        assert!(verifier.verify(&token, NOW).is_ok());
        // The last character is left alone: its lowest bits are padding and carry nothing.
        for at in 0..token.len() - 1 {
            let mut spoiled = token.clone().into_bytes();
            spoiled[at] = if spoiled[at] == b'A' { b'B' } else { b'A' };
            let spoiled = String::from_utf8(spoiled).unwrap();
            assert_eq!(verifier.verify(&spoiled, NOW), Err(TokenError::Bad), "byte {at}");
        }
    }
}
