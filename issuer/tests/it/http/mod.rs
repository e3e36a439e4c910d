//! One file for each of `src/http/`.

mod agents;
mod audit;
mod client_auth;
mod cors;
mod credentials;
mod errors;
mod health;
mod idempotency;
mod introspect;
mod limits_of_requests;
mod openapi;
mod resource_servers;
mod revocation_status;
mod revocations;
mod revoke;
mod status_lists;
mod tenants;
mod token;
mod wellknown;
mod works;
