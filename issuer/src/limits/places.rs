//! Room for expensive work: so much at once for one tenant, so much in all. Nobody takes all of it from the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_shared::TenantId;

/// What is under way.
pub struct Places {
    of_one: usize,
    of_all: usize,
    taken: Arc<Mutex<HashMap<TenantId, usize>>>,
}

impl Places {
    /// With nothing under way.
    pub fn new(of_one: usize, of_all: usize) -> Self {
        Self { of_one, of_all, taken: Arc::default() }
    }

    /// A place for work of `tenant`, until it is dropped; `None` where it, or everybody together, has as many as there are.
    pub fn take(&self, tenant: TenantId) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(&tenant).copied().unwrap_or_default();
        if own >= self.of_one || taken.values().sum::<usize>() >= self.of_all {
            return None;
        }
        taken.insert(tenant, own + 1);
        Some(Place { tenant, taken: self.taken.clone() })
    }
}

/// One place.
pub struct Place {
    tenant: TenantId,
    taken: Arc<Mutex<HashMap<TenantId, usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.tenant) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.remove(&self.tenant)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_another_s() {
        let tenant = |n: u8| format!("00000000-0000-4000-8000-{n:012}").parse().unwrap();
        let places = Places::new(2, 5);
        let mut ones: Vec<Place> = (0..4).filter_map(|_| places.take(tenant(1))).collect();
        assert_eq!(ones.len(), 2);
        let others: Vec<Place> = (2..10).filter_map(|n| places.take(tenant(n))).collect();
        assert_eq!(others.len(), 3);
        ones.pop();
        assert!(places.take(tenant(2)).is_some(), "room for one more, that isn't kept");
        drop((ones, others));
        assert!(places.taken.lock().unwrap().is_empty());
    }
}
