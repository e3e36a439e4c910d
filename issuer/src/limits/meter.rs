//! What a request meets of limits on its way, for the headers of its answer.
//!
//! Limits are met in several places and every kind of answer shows them, so they are noted beside the request's task instead of being
//! handed through all that lies between.

use std::cell::{Cell, RefCell};

use countersign_shared::{AgentId, TenantId};

use crate::domain::limit::{Endpoint, Rate, Standing};

tokio::task_local! {
    static METER: Meter;
}

struct Meter {
    endpoint: Endpoint,
    /// What the request still has to be counted under.
    address: Cell<Option<Rate>>,
    standings: RefCell<Vec<Standing>>,
    caller: Cell<Option<(TenantId, AgentId)>>,
}

/// What is known of a request once it was answered.
#[derive(Debug, Default)]
pub struct Metered {
    /// How it stood with each limit that it met.
    pub standings: Vec<Standing>,
    /// Whose token it had, if that held.
    pub caller: Option<(TenantId, AgentId)>,
}

/// Runs `answering`, a request to `endpoint` from an `address` under whose limit it has to be counted; with its result comes what was noted of it.
pub async fn metered<T>(
    endpoint: Endpoint,
    address: Option<Rate>,
    answering: impl Future<Output = T>,
) -> (T, Metered) {
    let address = Cell::new(address);
    let meter = Meter { endpoint, address, standings: RefCell::default(), caller: Cell::default() };
    METER
        .scope(meter, async {
            let answer = answering.await;
            let metered =
                |meter: &Meter| Metered { standings: meter.standings.take(), caller: meter.caller.get() };
            (answer, METER.with(metered))
        })
        .await
}

/// Where the current request goes; `None` outside of any.
pub(super) fn endpoint() -> Option<Endpoint> {
    METER.try_with(|meter| meter.endpoint).ok()
}

/// What the current request is to be counted under by its address; nothing where somebody has taken it before.
pub(super) fn take_address() -> Option<Rate> {
    METER.try_with(|meter| meter.address.take()).ok().flatten()
}

/// Notes whose token the current request has.
pub fn note_caller(tenant: TenantId, agent: AgentId) {
    _ = METER.try_with(|meter| meter.caller.set(Some((tenant, agent))));
}

/// Notes how the current request stands with a limit.
pub(super) fn note(standing: Standing) {
    // Outside of a request nobody wants to know.
    _ = METER.try_with(|meter| meter.standings.borrow_mut().push(standing));
}
