//! Hop times in reports: only to a broker that agreed to take them.

use std::time::Instant;

use waybill_wire::Frame;
use waybill_wire::code::{TraceHop, capability};
use waybill_wire::frame::HopTime;

use super::Rig;
use crate::gateway::{GatewayCommand, Report};
use crate::link::Welcomed;

/// TRC-4.
#[test]
fn a_report_has_hop_times_where_that_was_agreed_on() {
    let mut rig = Rig::new();
    assert!(rig.machine.wishes().capabilities & capability::TRACE != 0);
    for (link, capabilities) in [(1, capability::REPORTS), (2, capability::TRACE)] {
        let welcomed = Welcomed { capabilities, ..Welcomed::for_tests() };
        rig.machine.handle_open(Instant::now(), &welcomed);
        let mut snapshot = Vec::new();
        rig.machine.transmit(&mut snapshot);
        let report =
            Report { link, sequence: 1, gateway_in_us: 50, socket_us: 70, ..Report::default() };
        let not_written = Report { socket_us: 0, sequence: 2, ..report.clone() };
        for report in [report, not_written] {
            rig.machine.handle_command(GatewayCommand::Report(report));
            let mut out = Vec::new();
            rig.machine.transmit(&mut out);
            let Ok(Frame::Report(report)) = Frame::decode(&out) else { panic!("{out:02x?}") };
            let hop = |hop, time_us| HopTime { time_us, process: 0xa1, gateway: 0xa1, hop };
            let all = [hop(TraceHop::GATEWAY_IN, 50), hop(TraceHop::SOCKET, 70)];
            let told: Vec<HopTime> = report.hops.times.iter().collect();
            match (link, report.sequence) {
                (1, _) => assert_eq!(told, []),
                (_, 1) => assert_eq!(told, all),
                _ => assert_eq!(told, all[..1]),
            }
        }
        rig.machine.handle_down(Instant::now());
    }
}
