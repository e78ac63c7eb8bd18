//! What has to be known to read a report, in words that stand under each.

/// How figures are to be read.
pub(super) const READING: [&str; 7] = [
    "A figure is the median of all repeats that passed the check, with least and greatest beside \
     it.",
    "A ratio is Waybill's figure divided by the other's, taken within one repeat, where both ran \
     within minutes of each other. The median of these ratios is shown; the thin line reaches \
     from the least to the greatest.",
    "A bar in outline and a ~ mean not distinguishable: the repeats allow either to be greater, or \
     the difference is under 25 % and there are fewer than 9 pairs. The interval is that of order \
     statistics, 95 % or more.",
    "The relay forwards the same frames by a fixed rule, without a table: the most that any \
     broker could do here.",
    "Latency counts from when a message was due, not from when it was sent, so a stall of the \
     server shows in full.",
    "Where the generator was idle for less than 15 % of the time, and at a rate late as well by \
     more than a quarter of p99, rates and latencies say how fast it was. They are not quoted; \
     CPU figures are.",
    "CPU is user and system time of all server processes of a target, and of nothing else.",
];

/// Where the method is weak.
pub(super) const WEAK: [&str; 7] = [
    "One machine, and loopback instead of a network: no wire, no network card, no interrupts of \
     one. What those cost would come on top, for every target alike.",
    "The generator shares caches and memory with the server, though not its core when placement \
     is pinned.",
    "Pinned placement gives each server one core. Servers that use several cores well are not \
     shown doing so; that is what free placement is for.",
    "One producer connection. Servers that scale by connections would do better with more.",
    "Messages of a run are alike: one size, users drawn evenly. Caches see more mixed work in \
     earnest.",
    "Runs last seconds. What grows over hours, or is collected now and then, is not seen.",
    "Peers are set up as their documentation recommends for speed, without durability, and no \
     further tuned.",
];
