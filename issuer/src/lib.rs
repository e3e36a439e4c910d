//! The issuer of Countersign.
//!
//! A request comes in through [`http`], which parses it and nothing more; [`grants`], [`tokens`] and [`management`] decide;
//! [`storage`] holds the only SQL; [`keys`] signs and seals; [`publisher`] carries revocations to the edge, [`status_lists`] says them to everybody else; [`audit`] keeps the audit log; [`jobs`] remove what is of no use any more; [`backup`] is for the day when the database is lost, [`doctor`] for every other. [`cli`] starts it all.

pub mod app;
pub mod audit;
pub mod backup;
pub mod capacity;
pub mod certificates;
pub mod cli;
pub mod clients;
pub mod clock;
pub mod config;
pub mod doctor;
pub mod domain;
pub mod failures;
pub mod grants;
pub mod hot;
pub mod http;
pub mod jobs;
pub mod keys;
pub mod lifecycle;
pub mod limits;
pub mod maintenance;
pub mod management;
pub mod metrics;
pub mod outage;
pub mod publisher;
pub mod replicas;
pub mod status_lists;
pub mod storage;
pub mod telemetry;
pub mod tokens;
pub mod traces;
