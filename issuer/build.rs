//! Two things that Cargo and sqlx don't do of themselves.

fn main() {
    // The migrations are embedded in the binary.
    println!("cargo:rerun-if-changed=../migrations");
    // `DATABASE_URL` in the environment is the database to run on, not one to check queries against: unless asked
    // otherwise (migrations/README.md), build from the committed `.sqlx`.
    println!("cargo:rerun-if-env-changed=SQLX_OFFLINE");
    if std::env::var_os("SQLX_OFFLINE").is_none() {
        println!("cargo:rustc-env=SQLX_OFFLINE=true");
    }
}
