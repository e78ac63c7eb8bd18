//! What each target looks like, the same in every plot of every page: families share a shape, and
//! no two targets a colour and a line.

use std::fmt::Write as _;

/// A mark's form, so that no target is known by colour alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Circle,
    Ring,
    Square,
    Triangle,
    Diamond,
}

/// How a target is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Its name in the style sheet.
    pub(super) class: &'static str,
    /// On light ground, and on dark. Each has a contrast of 3 to 1 or more against its ground.
    light: &'static str,
    dark: &'static str,
    /// Its lines: strokes and gaps.
    dash: &'static str,
    /// Its marks.
    pub(super) shape: Shape,
}

const fn look(
    class: &'static str,
    (light, dark): (&'static str, &'static str),
    dash: &'static str,
    shape: Shape,
) -> Look {
    Look { class, light, dark, dash, shape }
}

/// Targets that are known, by name.
const KNOWN: [(&str, Look); 16] = [
    ("waybill", look("waybill", ("#0a58b0", "#7ab8ff"), "none", Shape::Circle)),
    ("waybill-client", look("waybill-client", ("#4b83bd", "#4f90d6"), "6 3", Shape::Circle)),
    ("waybill/receipts", look("waybill-receipts", ("#2f3fa8", "#a3aefc"), "2 3", Shape::Circle)),
    ("waybill-uring", look("waybill-uring", ("#1d6fa5", "#8ccdf0"), "8 2 2 2", Shape::Circle)),
    ("waybill-tokio", look("waybill-tokio", ("#5a6fb5", "#b9c6f7"), "4 2", Shape::Circle)),
    ("waybill/2shards", look("waybill-2", ("#1e4e8c", "#6aa5e8"), "2 2", Shape::Circle)),
    ("waybill/2shards-links", look("waybill-2l", ("#3b3f9e", "#9aa0f0"), "8 3", Shape::Circle)),
    ("relay-epoll", look("relay-epoll", ("#777470", "#a9a7a2"), "none", Shape::Ring)),
    ("relay-uring", look("relay-uring", ("#57534e", "#d6d3cd"), "2 3", Shape::Ring)),
    ("nats/uid", look("nats-uid", ("#15803d", "#5fd08a"), "none", Shape::Square)),
    ("nats/lookup", look("nats-lookup", ("#0f766e", "#3fb8ac"), "6 3", Shape::Square)),
    ("nats/gw", look("nats-gw", ("#65860a", "#b4d455"), "2 3", Shape::Square)),
    ("redis/uid", look("redis-uid", ("#c0311c", "#ff8f7a"), "none", Shape::Triangle)),
    ("redis/lookup", look("redis-lookup", ("#b0347a", "#f08cc4"), "6 3", Shape::Triangle)),
    ("rabbitmq", look("rabbitmq", ("#a16207", "#e9bd4c"), "none", Shape::Diamond)),
    ("rabbitmq/uid", look("rabbitmq-uid", ("#b45309", "#f5a35c"), "6 3", Shape::Diamond)),
];

/// For targets that are not, in turns.
const OTHERS: [Look; 4] = [
    look("other-1", ("#7c3aed", "#b79af8"), "none", Shape::Diamond),
    look("other-2", ("#8a5a44", "#d1a68d"), "6 3", Shape::Square),
    look("other-3", ("#0e7490", "#5cc4dd"), "2 3", Shape::Triangle),
    look("other-4", ("#be123c", "#fb9fb3"), "8 2 2 2", Shape::Ring),
];

/// How each target of a page is drawn.
#[derive(Clone, Debug)]
pub(super) struct Looks<'a>(Vec<(&'a str, Look)>);

impl<'a> Looks<'a> {
    /// For these targets, in the order in which they stand.
    pub(super) fn of(targets: &[&'a str]) -> Self {
        let mut others = OTHERS.iter().cycle();
        let look = |target: &&'a str| {
            let known = KNOWN.iter().find(|(name, _)| name == target).map(|(_, look)| *look);
            (*target, known.or_else(|| others.next().copied()).expect("a cycle has no end"))
        };
        Self(targets.iter().map(look).collect())
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'a str, Look)> + '_ {
        self.0.iter().copied()
    }

    /// That of one.
    pub(super) fn get(&self, target: &str) -> Look {
        self.0.iter().find(|(name, _)| *name == target).map_or(OTHERS[0], |(_, look)| *look)
    }

    /// Their part of the style sheet.
    pub(super) fn style(&self) -> String {
        let (mut light, mut dark) = (String::new(), String::new());
        for (_, look) in &self.0 {
            let Look { class, dash, .. } = look;
            let _ = writeln!(light, ".t-{class}{{--c:{};--dash:{dash}}}", look.light);
            let _ = writeln!(dark, ".t-{class}{{--c:{}}}", look.dark);
        }
        format!("{light}@media(prefers-color-scheme:dark){{{dark}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Grounds of the style sheet.
    const LIGHT: &str = "#fcfbf8";
    const DARK: &str = "#16181c";

    /// Relative luminance, as the Web Content Accessibility Guidelines define it.
    fn luminance(colour: &str) -> f64 {
        let channel = |at: usize| {
            let byte = u8::from_str_radix(&colour[at..at + 2], 16).expect("two hex digits");
            let part = f64::from(byte) / 255.0;
            if part <= 0.040_45 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }

    fn contrast(one: &str, other: &str) -> f64 {
        let (one, other) = (luminance(one), luminance(other));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    #[test]
    fn every_colour_can_be_told_from_its_ground() {
        let sheet = include_str!("style.css");
        assert!(sheet.contains(LIGHT) && sheet.contains(DARK), "the grounds of this test");
        for look in KNOWN.iter().map(|(_, look)| look).chain(&OTHERS) {
            let (light, dark) = (contrast(look.light, LIGHT), contrast(look.dark, DARK));
            assert!(light >= 3.0 && dark >= 3.0, "{}: {light:.1}, {dark:.1}", look.class);
        }
    }

    #[test]
    fn every_target_of_the_bench_has_its_own_look() {
        let unknown = crate::targets::all().into_iter().map(|target| target.name);
        let unknown = unknown.filter(|name| !KNOWN.iter().any(|(known, _)| known == name));
        assert_eq!(unknown.collect::<Vec<_>>(), Vec::<&str>::new());
    }

    #[test]
    fn no_two_targets_look_alike() {
        let looks: Vec<Look> = KNOWN.iter().map(|(_, look)| *look).chain(OTHERS).collect();
        for (at, one) in looks.iter().enumerate() {
            for other in &looks[at + 1..] {
                assert_ne!(one.class, other.class);
                assert!(one.light != other.light && one.dark != other.dark);
            }
        }
    }
}
