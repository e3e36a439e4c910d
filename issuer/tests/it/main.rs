//! The issuer from outside: the real binary on a real Postgres, a database for each test, and a real Redis. What is asserted is what
//! HTTP clients, the edge and the operator get to see.
//!
//! Needs `TEST_DATABASE_URL` (a superuser's), `TEST_REDIS_URL` and `TEST_PKCS11_MODULE` (of `SoftHSM`); `bin/test` sets them.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod audit;
mod backup;
mod bootstrap;
mod cli_agents;
mod config;
mod confinement;
mod doctor;
mod http;
mod import;
mod jobs;
mod keys;
mod lifecycle;
mod limits;
mod logs;
mod maintenance;
mod metrics;
mod outage;
mod policy;
mod publisher;
mod replicas;
mod revoking;
mod sealing;
mod support;
mod traces;
mod upgrades;
