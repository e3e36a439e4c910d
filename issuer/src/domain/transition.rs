//! How the status of an agent or a tenant changes.

/// A change of the status. One that leads to where it is changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// It may do nothing for now.
    Suspend,
    /// It may act again.
    Reactivate,
    /// It may never act again.
    Decommission,
}

/// It is decommissioned, and stays so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Final;
