//! `countersign bootstrap`.

use serde_json::json;

use super::{Bootstrap, Outcome};
use crate::config::{self, Sources};
use crate::domain::agent::is_email;
use crate::domain::client_secret::ClientSecret;
use crate::management::bootstrap::{Bootstrapped, Names, bootstrap};
use crate::storage::{Database, schema};
use crate::{keys, telemetry};

pub(super) async fn run(sources: &Sources, options: &Bootstrap) -> Outcome {
    let config = config::Bootstrap::from_sources(sources)?;
    telemetry::start(config.telemetry);
    if !is_email(&options.email) {
        return Err("--email is not an email address".into());
    }
    if !(1..=200).contains(&options.tenant.chars().count()) || options.tenant.chars().any(char::is_control) {
        return Err("--tenant must have 1 to 200 characters".into());
    }
    let database = Database::connect(&config.database).await?;
    schema::require(&database).await?;
    keys::provision(&database, &config.master_key, &config.signing, config.first_key.as_ref()).await?;
    let secrets =
        keys::load_secrets(&database, &config.master_key).await?.ok_or("the server's secrets are gone")?;

    let names = Names { tenant: &options.tenant, email: &options.email, audience: &config.default_audience };
    let bootstrapped = bootstrap(&database, &secrets, &names).await?;
    if options.json {
        print_json(&bootstrapped);
    } else {
        print_text(&bootstrapped);
    }
    Ok(())
}

fn print_json(bootstrapped: &Bootstrapped) {
    let answer = json!({
        "tenant_id": bootstrapped.tenant,
        "client_id": bootstrapped.administrator,
        "client_secret": bootstrapped.secret.as_ref().map(ClientSecret::expose),
    });
    println!("{answer}");
}

fn print_text(bootstrapped: &Bootstrapped) {
    let Bootstrapped { tenant, administrator, secret } = bootstrapped;
    match secret {
        None => println!("nothing to do: tenant {tenant} is there already"),
        Some(_) => println!("made the first tenant and its administrator agent"),
    }
    println!("tenant_id      {tenant}");
    if let Some(administrator) = administrator {
        println!("client_id      {administrator}");
    }
    if let Some(secret) = secret {
        println!("client_secret  {}\n\nThe secret is shown this once: keep it now.", secret.expose());
    }
}
