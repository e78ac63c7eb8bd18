//! Which pages of a browser may connect (WS-14).
//!
//! A browser attaches no token of its own to a WebSocket, so this is not what keeps strangers out;
//! it keeps a page from using a user's browser as its way into a gateway that only the browser can
//! reach.

/// An origin as RFC 6454 writes it: scheme, host and port, compared without regard to case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    /// The origin in `scheme://host` or `scheme://host:port`; `None` for anything else, also for
    /// `null`, which is what a page without an origin says.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        if scheme.is_empty() || !scheme.bytes().all(is_scheme_byte) {
            return None;
        }
        let (host, port) = authority_parts(authority)?;
        let port = port.or_else(|| default_port(&scheme));
        Some(Self { scheme, host, port })
    }

    /// Whether it names the host and port of this `Host` header. A `Host` without a port means the
    /// port of the origin's scheme: behind a proxy that ends TLS only the origin knows it.
    #[must_use]
    pub(crate) fn is_host(&self, header: &str) -> bool {
        authority_parts(header).is_some_and(|(host, port)| {
            host == self.host && port.or_else(|| default_port(&self.scheme)) == self.port
        })
    }
}

/// Whether a request with these headers may connect. `origins` are its `Origin` headers.
pub(crate) fn is_allowed<'a>(
    mut origins: impl Iterator<Item = &'a [u8]>,
    host: Option<&str>,
    allowed: &[Origin],
) -> bool {
    let Some(origin) = origins.next() else { return true };
    if origins.next().is_some() {
        return false;
    }
    let origin = std::str::from_utf8(origin).ok().and_then(Origin::parse);
    origin.is_some_and(|origin| {
        allowed.contains(&origin) || host.is_some_and(|host| origin.is_host(host))
    })
}

/// Host in lower case and port of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn authority_parts(authority: &str) -> Option<(String, Option<u16>)> {
    let end_of_host = authority.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match authority[end_of_host..].find(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(end_of_host + colon);
            (host, Some(port[1..].parse().ok()?))
        }
        None => (authority, None),
    };
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"/?#@\\".contains(&byte);
    let good = !host.is_empty() && host.bytes().all(plain);
    good.then(|| (host.to_ascii_lowercase(), port))
}

fn is_scheme_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(origin: &str, host: &str, expected: bool) {
        let allowed = [Origin::parse("https://app.example.com").unwrap()];
        let found = is_allowed([origin.as_bytes()].into_iter(), Some(host), &allowed);
        assert_eq!(found, expected, "origin {origin} host {host}");
    }

    #[test]
    fn ws_14_listed_or_the_same_host_and_port() {
        check("https://app.example.com", "push.example.com", true);
        check("HTTPS://App.Example.Com:443", "push.example.com", true);
        check("http://app.example.com", "push.example.com", false);
        check("https://app.example.com:8443", "push.example.com", false);
        check("https://app.example.com.evil.org", "push.example.com", false);
        check("https://evil.org", "push.example.com", false);
        check("http://localhost:7712", "localhost:7712", true);
        check("http://localhost:7713", "localhost:7712", false);
        check("http://localhost", "localhost:7712", false);
        check("https://push.example.com", "push.example.com", true);
        check("https://push.example.com", "PUSH.example.com:443", true);
        check("http://[::1]:7712", "[::1]:7712", true);
        check("http://[::1]:7712", "[::2]:7712", false);
        for garbage in ["null", "", "://", "http://", "app.example.com", "http://a/b", "http://u@h"]
        {
            check(garbage, "push.example.com", false);
        }
    }

    #[test]
    fn ws_14_programs_send_none_and_two_are_too_many() {
        assert!(is_allowed(std::iter::empty(), None, &[]));
        let twice = [&b"http://localhost"[..], b"http://localhost"];
        assert!(!is_allowed(twice.into_iter(), Some("localhost"), &[]));
        assert!(!is_allowed([&b"http://localhost"[..]].into_iter(), None, &[]));
    }
}
