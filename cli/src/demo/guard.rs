//! Who may use the demo's routes: the page itself, in a browser on this machine.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Middleware: lets a request through or answers 403, 415 or 421.
pub(super) async fn check(request: Request, next: Next) -> Response {
    match judge(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status, words)) => (status, words).into_response(),
    }
}

type Refusal = (StatusCode, &'static str);

fn judge(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // A request with two of them could be read in two ways.
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let host = host.filter(|host| hosts.next().is_none() && is_loopback(host));
    let Some(host) = host else {
        let words = "the demo answers only as localhost, 127.0.0.1 or [::1]\n";
        return Err((StatusCode::MISDIRECTED_REQUEST, words));
    };
    if !matches!(*method, Method::POST) {
        return Ok(());
    }
    let foreign = (StatusCode::FORBIDDEN, "only the demo page itself may ask for this\n");
    if headers.contains_key(header::ORIGIN)
        && text(header::ORIGIN).and_then(|origin| origin.strip_prefix("http://")) != Some(host)
    {
        return Err(foreign);
    }
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    if site.is_some_and(|site| site != b"same-origin") {
        return Err(foreign);
    }
    let kind = text(header::CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json\n"));
    }
    Ok(())
}

/// Whether a Host header names this machine, by an address or by the one name that always means it.
fn is_loopback(host: &str) -> bool {
    let uri = Uri::builder().authority(host).scheme("http").path_and_query("/").build();
    let Ok(uri) = uri else { return false };
    let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    let name = uri.host().unwrap_or_default();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    plain && (name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback()))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn check(method: &Method, given: &[(&'static str, &'static str)], expected: u16) {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let status = judge(method, &headers).map_or_else(|(status, _)| status.as_u16(), |()| 200);
        assert_eq!(status, expected, "{method} {given:?}");
    }

    #[test]
    fn only_loopback_hosts() {
        for host in ["127.0.0.1:7712", "localhost:7712", "LOCALHOST", "[::1]:7712", "127.9.9.9"] {
            check(&Method::GET, &[("host", host)], 200);
        }
        for host in
            ["evil.example:7712", "127.0.0.1.evil.example", "10.0.0.1", "a@127.0.0.1", "", "["]
        {
            check(&Method::GET, &[("host", host)], 421);
        }
        check(&Method::GET, &[], 421);
        check(&Method::GET, &[("host", "localhost"), ("host", "evil.example")], 421);
    }

    #[test]
    fn posts_come_from_the_page() {
        let host = ("host", "127.0.0.1:7712");
        let json = ("content-type", "application/json; charset=utf-8");
        check(&Method::POST, &[host, json], 200);
        check(&Method::POST, &[host, json, ("origin", "http://127.0.0.1:7712")], 200);
        check(&Method::POST, &[host, json, ("sec-fetch-site", "same-origin")], 200);
        for origin in
            ["http://evil.example", "https://127.0.0.1:7712", "http://127.0.0.1:1", "null"]
        {
            check(&Method::POST, &[host, json, ("origin", origin)], 403);
        }
        check(&Method::POST, &[host, json, ("sec-fetch-site", "cross-site")], 403);
        check(&Method::POST, &[host], 415);
        check(&Method::POST, &[host, ("content-type", "text/plain")], 415);
        check(&Method::POST, &[("host", "evil.example"), json], 421);
    }
}
