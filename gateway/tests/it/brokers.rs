//! What a gateway owes its brokers and its users when there is more than one of either: displaced
//! logins, reports, links that end, brokers that come and go by name.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use waybill_client::{Lookup, Resolver};
use waybill_gateway::{Gateway, GatewayConfig};
use waybill_wire::MessageHead;
use waybill_wire::code::{ErrorCode, Level};
use waybill_wire::frame::Displaced;

use crate::broker::FakeBroker;
use crate::support::{JSON, SECRET, Site, User, http, login, run, token};

#[test]
fn promise_8_a_login_that_lost_is_told_and_withdrawn() {
    run(async {
        let mut site = Site::start(|_| {}).await;
        let mut loser = site.user_with(0, 1001, 5).await;
        let mut winner = site.user_with(0, 1001, 9).await;
        let displaced = Displaced { device_class: 0, namespace: 0, uid: 1001, login: 5, winner: 9 };
        site.broker.displace(displaced).await;
        let (code, reason) = loser.closed().await;
        assert_eq!((code, &reason[..]), (4504, "the login with number 9 has taken over"));
        // Told again by another broker, say.
        site.broker.displace(displaced).await;
        site.broker.until(|users| users.contains(&(0, 1001))).await;
        let head = MessageHead { sequence: 1, ..MessageHead::default() };
        site.broker.deliver(head, &[1001], b"for the winner").await;
        assert_eq!(winner.data().await, "for the winner");
        assert_eq!(site.gateway.stats().displaced, 1);
    });
}

#[test]
fn a_delivery_is_reported_as_it_went() {
    run(async {
        let mut site = Site::start(|_| {}).await;
        let mut user = site.user(1001).await;
        let head =
            |sequence| MessageHead { sequence, level: Level::DELIVERED, ..MessageHead::default() };
        site.broker.deliver(head(1), &[1001, 2002], b"x").await;
        assert_eq!(site.broker.reports.recv().await, Some((1, [1, 1, 0, 0, 0])));
        assert_eq!(user.data().await, "x");
        // Nobody asks, nobody is told.
        let quiet = MessageHead { sequence: 2, level: Level::ROUTED, ..MessageHead::default() };
        site.broker.deliver(quiet, &[1001], b"y").await;
        site.broker.deliver(head(3), &[2002], b"z").await;
        assert_eq!(site.broker.reports.recv().await, Some((3, [0, 1, 0, 0, 0])));
        let (status, ledger) = http(site.address(), "/ledger", "").await;
        let ledger: serde_json::Value = serde_json::from_str(&ledger).unwrap();
        assert_eq!((status, &ledger["messages_in"]), (200, &3.into()));
        assert_eq!((&ledger["addressed"], &ledger["reports"]), (&2.into(), &2.into()));
    });
}

#[test]
fn up_what_was_unanswered_is_sent_again_once_the_link_is_back() {
    run(async {
        let mut site = Site::start(|_| {}).await;
        let mut user = site.user(1001).await;
        for id in [1, 2] {
            user.say(&format!(r#"{{"type":"send","id":{id},"data":"x"}}"#)).await;
        }
        let first = site.broker.uplinks.recv().await.unwrap();
        let second = site.broker.uplinks.recv().await.unwrap();
        assert!(!first.resend && !second.resend);
        site.broker.hang_up().await;
        site.broker.accept_again().await;
        for sequence in [first.sequence, second.sequence] {
            let again = site.broker.uplinks.recv().await.unwrap();
            assert_eq!((again.sequence, again.resend), (sequence, true), "in order, by its number");
            site.broker.acknowledge(sequence, ErrorCode(0)).await;
        }
        for id in [1, 2] {
            assert_eq!(user.hear().await, serde_json::json!({"type": "sent", "id": id}));
        }
    });
}

/// A name whose addresses a test changes.
#[derive(Debug, Default)]
struct Name(Mutex<Vec<SocketAddr>>);

impl Resolver for Name {
    fn resolve(&self, _name: String) -> Lookup {
        let addresses = self.0.lock().unwrap().clone();
        Box::pin(async move { io::Result::Ok(addresses) })
    }
}

#[test]
fn brokers_come_and_go_by_name_and_users_notice_nothing() {
    run(async {
        let (mut old, mut new) = (FakeBroker::start().await, FakeBroker::start().await);
        let name = Arc::new(Name::default());
        *name.0.lock().unwrap() = vec![old.address];
        let mut config =
            GatewayConfig { listen: "127.0.0.1:0".parse().unwrap(), ..Default::default() };
        config.broker.addresses = vec!["dns:brokers.internal:7711".into()];
        config.broker.dns_refresh_ms = 100;
        config.jwt.secret = SECRET.into();
        let resolver = Arc::clone(&name) as Arc<dyn Resolver>;
        let gateway = Gateway::start_with(config, None, resolver).await.unwrap();
        let mut user = User::connect(gateway.local_addr(), JSON).await;
        user.say(&login(&token(0, 1001, 3600))).await;
        assert_eq!(user.hear().await["type"], "ready");
        old.until(|users| users.contains(&(0, 1001))).await;
        *name.0.lock().unwrap() = vec![new.address];
        new.until(|users| users.contains(&(0, 1001))).await;
        // The old one is left, and what the new one says arrives.
        old.left().await;
        let head = MessageHead { sequence: 1, ..MessageHead::default() };
        new.deliver(head, &[1001], b"by the new one").await;
        assert_eq!(user.data().await, "by the new one");
        assert_eq!(gateway.stats().link_losses, 0);
        assert_eq!(gateway.stats().balances(), Ok(()));
    });
}

#[test]
fn reg_8_another_address_of_a_linked_broker_is_tried_when_that_link_is_lost() {
    run(async {
        // The scripted brokers all have the same number: two addresses of one.
        let (mut first, mut second) = (FakeBroker::start().await, FakeBroker::start().await);
        let mut config =
            GatewayConfig { listen: "127.0.0.1:0".parse().unwrap(), ..Default::default() };
        let addresses = [first.address, second.address];
        config.broker.addresses = addresses.map(|address| address.to_string()).into();
        config.jwt.secret = SECRET.into();
        let gateway = Gateway::start(config, None).await.unwrap();
        let mut user = User::connect(gateway.local_addr(), JSON).await;
        user.say(&login(&token(0, 1001, 3600))).await;
        assert_eq!(user.hear().await["type"], "ready");
        for broker in [&mut first, &mut second] {
            broker.until(|users| users.contains(&(0, 1001))).await;
        }
        first.supersede().await;
        first.until(BTreeSet::is_empty).await;
        first.accept_again().await;
        second.hang_up().await;
        // Nobody has restarted anything, and the user has been there all the time.
        first.until(|users| users.contains(&(0, 1001))).await;
        let head = MessageHead { sequence: 1, ..MessageHead::default() };
        first.deliver(head, &[1001], b"by the other address").await;
        assert_eq!(user.data().await, "by the other address");
    });
}
