//! Every bound of the broker that is no setting, and the one sum they make; `memory.rs` has it in
//! numbers.
//!
//! Memory of a broker under any load is at most
//!
//! ```text
//! (links_max + REFUSALS_MAX) x (
//!       LINK_BYTES                            what each may hold uncharged: its read buffer, some
//!                                             answers, a few messages
//!     + 16 KiB )                              session, outbox, role, what the backend keeps
//! + 2 x links_bytes_max                       what they hold beyond that, charged by the capacity
//!                                             of buffers at the end of each turn: frames waiting
//!                                             and being written and on their way between shards,
//!                                             answers, frames split between reads, large read
//!                                             buffers, a PUBLISH or TAG that takes several turns,
//!                                             receipts, reports and uplinks that wait, keys,
//!                                             filters; and buffers that double within a turn
//! + shards x 2 x ((TURN_LINKS + 1) x LINK_STEPS x STEP_BYTES + INPUTS_PER_TURN x READ_BYTES)
//!                                             what a turn brings before it is counted
//! + shards x 4 x outbox_bytes_max             a buffer that is moved, or built anew
//! + shards x BATCH_TARGETS x (68 + 40 x gateways of a user), or targets_max x 68 + ALONE_HITS x 40
//! + shards x PLAIN_MESSAGES x (128 + 32 x gateways of a user)
//! + shards x HALFWAY_MAX x (targets_max x 68 + 2 x HALFWAY_HITS x 40)
//! + shards x targets_max x (68 + 40 x gateways of a user)
//! + shards x (HALFWAY_MAX + 2) x 256 KiB
//!                                             what messages have found: those of a batch, those
//!                                             that take several turns, and the longest of them
//! + shards x ( RUNS_KEPT x RUN_BUFFER_MAX + PARCELS_KEPT x 4 x PARCEL_BYTES )
//!                                             buffers for the next messages that outboxes share,
//!                                             and for the next ones to other shards
//! + shards x BUFFERS_MAX x 4 x READ_BYTES_MIN   what io_uring receives into, and has received that
//!                                             is not read yet
//! + ADMIN_CONNECTIONS_MAX x 4 MiB             who asks for health and ledger, or where a message
//!                                             would go: a question, and its answer twice
//! + routes_max x (bytes of a route + 160)     routes, and registrations they follow from
//! + 65,536 x 4 KiB                            namespaces with users; one more is refused
//! + 2 x routes_max x 160                      where logins exclude each other: those that contend,
//!                                             and what slots that left have left behind of them
//! + 2 x routes_max x 96                       those of them that have lost and were not told of
//! + tags_max x 96                             tags that are kept, of 64 bytes each
//! + tags_max x gateways_max / 8               which gateways have each: two bytes for one, and at
//!                                             most a bit for every one there may be
//! ```
//!
//! Frames in mail between shards are inside `outbox_bytes_max`: their place is reserved before they
//! are sent, and they are charged on their way. The bounds of one link below are reached where the
//! pool of all links (`pool.rs`) has enough left; else a share of what it has left is the bound.
//! Mail that says that logins have lost, or what was told of an older slot, is at most
//! `gateways_max` pieces of each, of 256 bytes.

/// Bytes of a read buffer, at most. Each read is followed by a write to every gateway it concerns,
/// so the larger it is, the fewer packets and system calls a message costs.
///
/// A message of 128 bytes to one of 10^5 users at 8 gateways: 0.118 us of CPU with 256 KiB, 0.095
/// with 512 (medians of 12 in turns).
pub const READ_BYTES: usize = 512 << 10;

/// Bytes of a link's first read buffer. It doubles with every read that fills it.
pub const READ_BYTES_MIN: usize = 16 << 10;

/// Reads in a row that would have fitted into half of the buffer, after which it is halved.
pub const SMALL_READS: u32 = 64;

/// Buffers that the io_uring backend receives into, of all links of a shard that have a standing
/// order, those that were not read yet among them. It starts with few and takes more as these run
/// out.
pub const BUFFERS_MAX: u16 = 256;

/// PUBLISHes that are looked up together, at most: enough for their places in the route table to
/// be on their way to the processor at one time, few enough to stay in its nearest cache.
///
/// CPU time of the brain for a message to one of 10^6 users (medians of 3, release build, busy
/// machine of two cores): 569 ns one by one, 239 ns in eights, from 16 to 256 at a time 200 to 241
/// ns, not distinguishable. By instructions: 2,866 one by one, 2,042 at 16, 1,998 at 64, 1,991 at
/// 128.
pub const BATCH_MESSAGES: usize = 64;

/// Messages to one user that ask for nothing, which are looked up together, at most: they are a
/// tenth as long there as others.
///
/// CPU of the broker for one of 128 bytes, in turns (medians of 9, least and greatest): to one of
/// 10^6 users 0.096 us (0.092 to 0.098) with 64 and 0.088 (0.082 to 0.090) with 256; of 10^5 users
/// 0.084 and 0.084.
pub const PLAIN_MESSAGES: usize = 256;

/// Targets after which no further message joins those that are looked up together.
///
/// CPU of a list of 100 (docs/decisions/0028, medians of 6 in turns): 2.42 us with 128, 2.25 with
/// 512, 2.20 with 2,048; of a list of 10 no difference.
pub const BATCH_TARGETS: usize = 512;

/// Bytes of messages that follow each other and go to the same gateways as they are, from which on
/// their outboxes share them (`outbox/runs.rs`). Few short messages are what copies are good at.
///
/// With 1 KiB the CPU of a broadcast is the same, with 16 KiB it is 3 times as much for one of 128
/// bytes (docs/decisions/0028): those that are looked up together are 11 KiB then.
pub const RUN_BYTES_MIN: usize = 4 << 10;

/// Bytes after which another run begins: two or three of them stay in a core's cache while they are
/// copied to every socket. With 16 and with 256 KiB a broadcast costs the same
/// (docs/decisions/0028).
pub const RUN_BYTES: usize = 64 << 10;

/// Bytes of frames for links of one shard after which the next ones travel apart.
///
/// CPU of the broker for a message to one user, where each of 8 gateways has a link to one of two
/// shards, in us: 0.41 to 0.61 with a mail for each frame, 0.18 to 0.19 with parcels, and 0.17 to
/// 0.20 on one shard (`waybill/2shards` and `waybill` of the bench, four runs of a second each,
/// machine not quiet).
pub const PARCEL_BYTES: usize = 64 << 10;

/// Emptied parcels that a shard keeps for what it sends next, of four times that at most.
pub const PARCELS_KEPT: usize = 4;

/// Frames of a parcel that are as much as one other input of a turn.
pub const FRAMES_PER_INPUT: usize = 16;

/// Buffers of runs that a shard keeps for the next ones.
pub const RUNS_KEPT: usize = 8;

/// Bytes of one of these, at most: a last frame may be as long as all before it, and a buffer twice
/// as long as what is in it.
pub const RUN_BUFFER_MAX: usize = 4 * RUN_BYTES;

/// Steps that a producer's link has in one turn of its shard, of some 3 ns: looking a UID up is 4
/// and 16 for each gateway it is at beside one, a frame for a gateway 64, or 24 if all get the
/// same, one for each of its UIDs and for every 32 bytes (SEC-24). Messages of one run are one
/// frame for each gateway whose outbox takes them together. Of a message to one user that asks for
/// nothing, looking up and a frame are 16 each.
///
/// So it has three quarters of a millisecond, of lists as of messages to one user. A turn ends with
/// a write to each gateway, which is the dearer the less it brings: with steps that took a UID for
/// eight times as much, and so a turn of 5 lists of 1,000, the broker took 19.1 to 19.6 us for one
/// (10^5 users, 8 gateways, in turns); with twice as many lists in a turn 17.4 to 17.8, with four
/// times 15.2 to 15.5, with eight times, as here, 14.5 to 14.8, with all that a read brings 12.8 to
/// 14.8. What lists wait at 10,000 and 30,000 a second was not distinguishable up to eight times.
///
/// A list of 4,096 users who are at 64 gateways each takes 18 turns: 0.4 ms by the median, 1.3 to
/// 1.4 the longest, 9 ms in all. EVERYONE with 60 kB at 1,000 gateways takes 9 turns of 0.14 to 0.2
/// ms. (Without the kernel; optimized build, machine of two cores.)
pub const LINK_STEPS: usize = 1 << 18;

/// Bytes that are copied in one step.
pub const STEP_BYTES: usize = 32;

/// Inputs the brain is given before its outputs are carried out. Large enough to batch, small
/// enough that no link waits for more than this many others. With 16 and with 2,048 the CPU of a
/// message to one of 64 gateways is the same (docs/decisions/0028): few shards have so much to read
/// at one time.
pub const INPUTS_PER_TURN: usize = 256;

/// Links that may take as many in one turn, beside the one that begins before all is taken: each
/// has all of its own. A turn ends with a write to each gateway that has something to be written,
/// so it should be worth that.
pub const TURN_LINKS: usize = 4;

/// A gateway's link has one in so many of a producer's steps: whole frames until they are used up,
/// the last one whatever it takes. A record is 96, so that is some 340 records, or three DELTAs of
/// 100, in 0.12 ms.
pub const GATEWAY_PART: usize = 8;

/// Gateways' links that may take as many in one turn: half a millisecond for all. Messages wait for
/// what they bring. But a turn ends with writes, of 5 to 10 us each, to every gateway that has
/// something to be written, and should be worth that; and each link has its turn before any has
/// another.
pub const TURN_GATEWAYS: usize = 4;

/// Users that a message which is served at once may have found, each as often as it is at gateways:
/// looking them up is as much as a link may do in a turn.
pub const ALONE_HITS: usize = 1 << 14;

/// Messages of a shard that are on their way through several turns. What they have found is kept
/// meanwhile; others wait as they came.
pub const HALFWAY_MAX: usize = 16;

/// Users that such a message, or a piece of it, may have found, each as often as it is at gateways.
/// One of a shard's messages at a time may find more; the others that would wait for it. A user
/// alone may be at every gateway.
pub const HALFWAY_HITS: usize = 1 << 16;

/// Bytes after which a write ends, at the next frame, so that answers and keepalive never wait
/// behind more than this.
///
/// With 64 KiB a broadcast of 1 KiB takes 1.6 to 1.7 times as much CPU, of 128 bytes 1.4 to 1.7
/// times, with 1 MiB no less (docs/decisions/0028); a message to one user the same with each.
pub const WRITE_BYTES: usize = 256 << 10;

/// Bytes of a payload from which on the outboxes of several gateways refer to one copy of it
/// instead of having each its own; and from which on a part of one is written from where it lies.
///
/// CPU time for each gateway, from the offer to the socket's other end, in us, copied and
/// referenced (`broker/benches/payloads.rs`, medians of 5, machine of two cores):
///
/// ```text
///                 4 KiB       16 KiB      32 KiB      64 KiB      256 KiB      1 MiB
///  8 gateways  2.96  3.18   3.40 3.62   3.89 3.87   8.44 8.13   32.6 27.8   375  103
/// 64 gateways  3.32  3.42   4.10 3.89   4.71 4.56   9.64 8.20   39.5 23.9   437   97
/// ```
pub const REFERENCED_BYTES: usize = 32 << 10;

/// Bytes of a payload above which it goes in pieces of that many to a gateway that puts them
/// together, with other messages between them.
///
/// A message of another producer or priority that comes next, with none of its own producer before
/// it, waits behind at most one write, which was not full before its last piece: 320 KiB, where it
/// was 1,280 KiB behind a whole payload of 1 MiB. For that such a payload
/// took 106 to 115 us of CPU time for each gateway where it took 94 to 103 whole, 115 to 125 in
/// pieces of 16 KiB and 94 to 116 in pieces of 256 KiB (the same program, 2, 8 and 64 gateways).
pub const FRAGMENT_BYTES: usize = 64 << 10;

/// Frames with a conflation key that are known by it in one priority of an outbox, each with at most
/// two entries. With more, those that wait are written as they are, and it begins anew.
pub const CONFLATION_KEYS_MAX: usize = 65_536;

/// Where an outbox drops its oldest to make room: the part of its bound by which mail from other
/// shards may be beyond, one in this many. It makes room for itself when it arrives.
pub const MAIL_BEYOND_PART: usize = 4;

/// Waiting answers, in bytes, at which a link that is not a gateway's is no longer read. It is
/// read again at half of it. Receipts are never dropped, so this is what bounds them.
pub const CONTROL_BYTES_STOP: usize = 256 << 10;

/// Waiting answers, in bytes, at which a link is ended as `overloaded`. It takes a gateway, which is
/// always read, that sends and never reads. Answers are small: this is some ten thousand of them.
pub const CONTROL_BYTES_MAX: usize = 4 << 20;

/// Waiting answers, in bytes, beyond which no DISPLACED is added to them. Whoever has lost waits
/// among the logins until the link has taken these: some 1,600.
pub const DISPLACED_BYTES: usize = 64 << 10;

/// Losers that a link takes from among the logins at one time, while these are locked.
pub const LOSERS_TAKEN: usize = 64;

/// Bytes that each link may hold without being charged for them: its read buffer, some answers,
/// and a few messages.
pub const LINK_BYTES: usize = READ_BYTES_MIN + (16 << 10);

/// Bytes of a frame that is not whole that a link may have, however little there is for all.
pub const PARTIAL_BYTES_LEAST: usize = 8 << 10;

/// The same of waiting answers of a gateway.
pub const CONTROL_BYTES_LEAST: usize = 8 << 10;

/// Milliseconds for which a link waits in the middle of a frame for the rest of which there is no
/// memory. Then it is ended: else those that have begun might wait for each other.
pub const SHORT_MS: u64 = 10_000;

/// A spare buffer that grew beyond this is given back to the allocator.
pub const SPARE_BYTES: usize = 2 * WRITE_BYTES;

/// Links without a HELLO that there may be, as a part of `links_max`: one in this many, divided
/// among the shards. Another one takes the place of the oldest (SEC-16).
pub const STRANGERS_PART: u32 = 4;

/// Links that may be told at one time why they are refused; beyond, they are closed without a word.
pub const REFUSALS_MAX: u32 = 64;

/// Registrations of one user at one gateway, each another device class or login number. They are
/// searched one by one.
pub const LOGINS_PER_USER_MAX: usize = 256;

/// Uplinks a consumer's link may owe an answer for, and a gateway's may wait for one for; one more
/// is refused, as `outbox_full` and `overloaded`. It also bounds the answers between shards.
pub const UPLINKS_UNANSWERED_MAX: usize = 65_536;

/// Bytes of the receipts of stage `delivered` that one producer's link may wait for. A PUBLISH
/// that asks for one, or a TAG, that comes when there are as many is refused as `overloaded`.
pub const RECEIPTS_PENDING_BYTES_MAX: usize = 4 << 20;

/// How many of them there may be.
pub const RECEIPTS_PENDING_MAX: usize = 65_536;

/// REPORTs that one gateway's link may owe, with those that nobody waits for any more. What it is
/// sent beyond is of unknown fate at once.
pub const REPORTS_AWAITED_MAX: usize = 65_536;

/// Connections for health, ledger and questions at one time; another one waits in the kernel's
/// backlog.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;

/// Milliseconds between two questions whether what was written has been read, where there is no
/// keepalive.
pub const CONFIRM_MS: u64 = 1_000;

/// Milliseconds for which a link that was sent a fatal error is still read, and what it sends
/// discarded. Closing at once would make the kernel reset the connection, and the peer might
/// never see the error.
pub const LINGER_MS: u64 = 1_000;

/// Milliseconds for which a link that ends is still written to.
pub const FLUSH_MS: u64 = 10_000;

/// The same for one that is ended because it reads too slowly: so long it has to take the one write
/// that is on its way, so that it is told why.
pub const SLOW_FLUSH_MS: u64 = 3_000;

/// Milliseconds after which a message in fragments is given up of which nothing has come.
pub const PIECES_STILL_MS: u64 = 10_000;

/// Milliseconds between ticks. Deadlines of sessions are some seconds; a tick walks the links.
pub const TICK_MS: u64 = 100;

/// Milliseconds between two portions of what is left to be done and nobody waits for, while other
/// things happen on the shard. Else all that is due is done on the tick.
pub const CHORES_MS: u64 = 5;

/// Portions of a tick: the bounds below are divided by it.
pub const CHORES_PER_TICK: usize = (TICK_MS / CHORES_MS) as usize;

/// Buckets of the route table looked at in the time of one tick of one shard, while a gateway is
/// dead, for what it left. Queries do not wait for it; who registers waits for that part of the
/// table alone.
///
/// 20,000 of them took 0.9 ms of CPU time of the thread, at most 1.0 (10^6 routes of 8 gateways and
/// 10^7 of 100, one of them dead), and 1.8 where every route was of the dead. Half as many are
/// looked at, so that a portion is met by fewer than one message in a hundred: else it is what the
/// p99 of messages shows while a gateway leaves. So a table of 10^7 routes is walked in 210 ticks
/// of one shard.
///
/// A tag counts as three, since a bucket of tags is written anew: ticks took 0.2 to 2.3 ms on
/// average with 10^6 tags at one gateway, 8 x 10^6 at 8 and 10^5 at each of 100 (busy machine, one
/// run each). With a bucket of tags as one step they took 10 to 48 ms, at most 64.
pub const SWEEP_STEPS: usize = 10_000;

/// Logins looked at in the time of one tick of one shard for those that slots which left have left
/// behind.
///
/// With this, [`BURIAL_STEPS`] and [`FOLLOW_STEPS`] the longest turns of one shard whose gateway of
/// 10^6 users went and came were, in milliseconds of CPU time of its thread (release build, busy
/// machine of two cores, three runs; no policy for logins, no presence): its link ends 0.05; ticks
/// after a takeover 0.9; RESUME 0.02; ticks in which it is dead and swept 2.6. With logins that
/// exclude each other (one run), ticks after a takeover were 3.0. Routes were then swept one by
/// one, 2,000 in a tick.
pub const LOGIN_STEPS: usize = 2_000;

/// Registrations of dead gateways freed in the time of one tick of one shard, and told to consumers
/// as lost.
pub const BURIAL_STEPS: usize = 2_000;

/// Registrations that came with a snapshot and are told to consumers, or made to contend with other
/// logins of their users, in one tick of one shard.
pub const FOLLOW_STEPS: usize = 2_000;

/// Milliseconds for which a slot waits to be told what consumers know of the one it replaced. It
/// comes as soon as the older link has heard of the newer; after that all would be told as new.
pub const TOLD_WAIT_MS: u64 = 10_000;

const _: () = assert!(DISPLACED_BYTES < CONTROL_BYTES_STOP);
const _: () = assert!(SPARE_BYTES >= WRITE_BYTES);
