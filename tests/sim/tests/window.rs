//! What a producer lets wait for receipts of stage delivered fits into what a broker keeps for it.

use waybill_broker::limits::RECEIPTS_PENDING_BYTES_MAX;
use waybill_broker::merge::{Merge, Share};
use waybill_client::sim::window::{AWAITED_BYTES_MAX, COPIES, GATEWAYS, awaited_bytes};

/// Bytes a broker keeps when each user is at as many gateways as the producer reckons with.
fn kept(targets: usize) -> usize {
    let uids: Vec<u64> = (0..targets as u64).collect();
    let mut merge = Merge::list(uids.iter().copied());
    let gateways = GATEWAYS.min(targets * COPIES);
    let mut shares = vec![Vec::new(); gateways];
    for copy in 0..targets * COPIES {
        shares[copy % gateways].push(uids[copy / COPIES]);
    }
    for uids in &shares {
        merge.part(Share::Uids(uids));
    }
    merge.bytes()
}

#[test]
fn rep_8_the_producers_window_fits_into_the_brokers_bound() {
    for targets in [1, 2, 3, 20, 21, 22, 64, 100, 1000, 4096] {
        assert!(kept(targets) <= awaited_bytes(targets), "{targets}");
        // The part that fills the window may exceed it.
        let waiting = AWAITED_BYTES_MAX.div_ceil(awaited_bytes(targets));
        assert!(waiting * kept(targets) <= RECEIPTS_PENDING_BYTES_MAX, "{targets}");
    }
    let mut everyone = Merge::everyone();
    (0..GATEWAYS).for_each(|_| {
        everyone.part(Share::Whole);
    });
    assert!(everyone.bytes() <= awaited_bytes(0));
    assert!(AWAITED_BYTES_MAX + awaited_bytes(4096) <= RECEIPTS_PENDING_BYTES_MAX);
}
