//! The issuer of Countersign.
//!
//! A request comes in through [`http`], which parses it and nothing more; [`grants`], [`tokens`] and [`management`] decide;
//! [`storage`] holds the only SQL; [`keys`] signs and seals; [`publisher`] carries revocations to the edge, [`status_lists`] says them to everybody else; [`audit`] keeps the audit log. [`cli`] starts it all.

pub mod app;
pub mod audit;
pub mod cli;
pub mod clients;
pub mod clock;
pub mod config;
pub mod domain;
pub mod failures;
pub mod grants;
pub mod hot;
pub mod http;
pub mod keys;
pub mod lifecycle;
pub mod limits;
pub mod management;
pub mod metrics;
pub mod publisher;
pub mod replicas;
pub mod status_lists;
pub mod storage;
pub mod telemetry;
pub mod tokens;
pub mod traces;
