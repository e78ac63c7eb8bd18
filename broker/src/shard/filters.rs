//! FILTER: what a consumer wants of all that it would get, from now on.

use waybill_wire::code::{ErrorCode, Kind, Op};
use waybill_wire::filter;
use waybill_wire::frame::Filter;

use super::Core;
use super::link::{ConsumerState, Part, RoleState};
use crate::io::LinkId;

impl Core {
    /// Installs a filter, replaces or removes it, or answers why not; in the order of causes of
    /// FLT-10, whose first the session has judged. In effect on every shard when this returns
    /// (FLT-7).
    pub(super) fn filter(&mut self, part: &mut Part, frame: &Filter<'_>) {
        let RoleState::Consumer(consumer) = &mut part.role else {
            unreachable!("the session passes FILTER from consumers only");
        };
        let refusal = if !consumer.grant.covers(frame.namespace) {
            Err((ErrorCode::NOT_PERMITTED, "this token does not allow the namespace".into()))
        } else {
            self.change_filter(part.id, consumer, frame)
        };
        if let Err((code, detail)) = refusal {
            part.refuse((Kind::FILTER, frame.filter.into()), code, &detail);
        }
    }

    fn change_filter(
        &self,
        link: LinkId,
        consumer: &mut ConsumerState,
        frame: &Filter<'_>,
    ) -> Result<(), (ErrorCode, String)> {
        let at = (self.id, link);
        let Filter { op, filter, namespace, expression } = *frame;
        if op == Op::REMOVE {
            if !expression.is_empty() {
                let detail = "a filter is removed without an expression";
                return Err((ErrorCode::BAD_EXPRESSION, detail.into()));
            }
            self.shared.consumer_unfilters(at, namespace, filter);
            consumer.filters.remove(&(namespace, filter));
            return Ok(());
        }
        let parsed = filter::parse(expression)
            .map_err(|error| (ErrorCode::BAD_EXPRESSION, error.to_string()))?;
        if consumer.held() > self.waiting_share() {
            let detail = "the links of this broker hold as much as links_bytes_max allows";
            return Err((ErrorCode::OVERLOADED, detail.into()));
        }
        self.shared
            .consumer_filters(at, namespace, filter, parsed)
            .map_err(|limit| (ErrorCode::OVERLOADED, limit.into()))?;
        consumer.filters.insert((namespace, filter), expression.len());
        Ok(())
    }
}
