//! One file for each of `src/http/`.

mod agents;
mod credentials;
mod errors;
mod health;
mod introspect;
mod revoke;
mod token;
mod wellknown;
