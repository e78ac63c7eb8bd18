//! Drives a [`Discovery`]: looks names up when that is due, and waits in between.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::discovery::{Discovery, Found};

/// The addresses of a name.
pub type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Looks names up; tests bring their own.
pub trait Resolver: fmt::Debug + Send + Sync {
    /// The addresses of `name`, which is `host:port`.
    fn resolve(&self, name: String) -> Lookup;
}

/// The resolver of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, name: String) -> Lookup {
        Box::pin(async move { Ok(tokio::net::lookup_host(name).await?.collect()) })
    }
}

/// A [`Discovery`] with a resolver and a clock.
pub struct Finder {
    discovery: Discovery,
    resolver: Arc<dyn Resolver>,
    /// The look-up under way.
    pending: Option<(usize, Lookup)>,
}

impl fmt::Debug for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finder").field("discovery", &self.discovery).finish_non_exhaustive()
    }
}

impl Finder {
    /// Looks the names of `entries` up again every `refresh`.
    #[must_use]
    pub fn new(entries: &[String], refresh: Duration, resolver: Arc<dyn Resolver>) -> Self {
        let now = tokio::time::Instant::now().into_std();
        Self { discovery: Discovery::new(entries, refresh, now), resolver, pending: None }
    }

    /// Waits for the next link to open or close; for ever if the list holds no names. Nothing is
    /// lost if it is not awaited to its end.
    pub async fn next(&mut self) -> Found {
        loop {
            if let Some(found) = self.discovery.poll() {
                return found;
            }
            if let Some((number, lookup)) = &mut self.pending {
                let result = lookup.await;
                if let Err(error) = &result {
                    tracing::warn!(%error, "a name of the list of brokers was not resolved");
                }
                let now = tokio::time::Instant::now().into_std();
                self.discovery.looked_up(now, *number, &result.unwrap_or_default());
                self.pending = None;
                continue;
            }
            let now = tokio::time::Instant::now().into_std();
            if let Some((number, name)) = self.discovery.lookup(now) {
                self.pending = Some((number, self.resolver.resolve(name)));
                continue;
            }
            match self.discovery.deadline() {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fixed(SocketAddr);

    impl Resolver for Fixed {
        fn resolve(&self, _name: String) -> Lookup {
            Box::pin(std::future::ready(Ok(vec![self.0])))
        }
    }

    #[tokio::test]
    async fn a_finder_asks_its_resolver() {
        let list = ["dns:b:7711", "c:1"].map(str::to_owned);
        let address = SocketAddr::from(([10, 0, 0, 9], 7711));
        let refresh = Duration::from_secs(10);
        let mut finder = Finder::new(&list, refresh, Arc::new(Fixed(address)));
        assert_eq!(finder.next().await, Found::Open("c:1".into()));
        assert_eq!(finder.next().await, Found::Open("10.0.0.9:7711".into()));
    }
}
