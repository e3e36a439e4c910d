//! `countersign revoke`.

use countersign_shared::{AgentId, CredentialId, Jti, TenantId};
use serde_json::json;
use time::format_description::well_known::Rfc3339;

use super::{Outcome, Revoke};
use crate::config::{self, Sources};
use crate::domain::audit::Origin;
use crate::management::caller::Caller;
use crate::management::revocations::{Ended, Subject, begin, revoke};
use crate::storage::{Database, schema, tenants};
use crate::{clock, keys, telemetry};

pub(super) async fn run(sources: &Sources, options: &Revoke) -> Outcome {
    let config = config::Keys::from_sources(sources)?;
    telemetry::start(config.plain.telemetry);
    let subject = subject(options)?;
    let database = Database::connect(&config.plain.database).await?;
    schema::check(&database).await?;
    let secrets = keys::load_secrets(&database, &config.master_key).await?;
    let secrets = secrets.ok_or("there are no keys yet: run `countersign bootstrap`")?;

    let tenant = match (&subject, options.tenant) {
        (_, Some(tenant)) => tenant,
        // By their ids alone it is clear whose they are.
        (Subject::Agent(AgentId(id)) | Subject::Credential(CredentialId(id)), None) => {
            tenants::owner(&database, *id).await?.ok_or("there is no such agent or credential")?
        }
        (Subject::Tenant(tenant), None) => *tenant,
        (Subject::Token(_) | Subject::Key(_), None) => tenants::platform(&database)
            .await?
            .ok_or("there is no tenant yet: run `countersign bootstrap`")?,
    };
    let caller = Caller::operator(tenant);
    let mut transaction = begin(&database, &caller, &subject).await?;
    let ended = revoke(&mut transaction, &secrets, &caller, &subject, &Origin::default()).await?;
    Database::commit(transaction).await?;
    match ended {
        Ended::Token(jti) if options.json => println!("{}", json!({ "jti": jti.to_string() })),
        Ended::Token(jti) => println!("revoked: token {jti}"),
        Ended::UpTo(time, _) => {
            let time = clock::timestamp(time).format(&Rfc3339)?;
            if options.json {
                println!("{}", json!({ "issued_up_to": time }));
            } else {
                println!("revoked: every token of it that was issued up to {time}");
            }
        }
    }
    if !options.json {
        println!("Edges refuse them about a second from now, if an issuer is running; else when one starts.");
    }
    Ok(())
}

fn subject(options: &Revoke) -> Result<Subject, String> {
    let what = &options.what;
    let bad = |name: &str| format!("--{name} is not a UUID in lower-case hyphenated form");
    if let Some(jti) = &what.jti {
        return jti
            .parse::<Jti>()
            .map(Subject::Token)
            .map_err(|_| "--jti is not that of a token of ours".into());
    }
    if let Some(agent) = &what.agent {
        return agent.parse::<AgentId>().map(Subject::Agent).map_err(|_| bad("agent"));
    }
    if let Some(credential) = &what.credential {
        return credential.parse::<CredentialId>().map(Subject::Credential).map_err(|_| bad("credential"));
    }
    if let Some(key) = &what.key {
        return Ok(Subject::Key(key.clone()));
    }
    match (what.all_of_tenant, options.tenant) {
        (true, Some(tenant)) => Ok(Subject::Tenant(tenant)),
        _ => Err("--all-of-tenant takes --tenant ID".into()),
    }
}

/// For clap.
pub(super) fn tenant_id(text: &str) -> Result<TenantId, String> {
    text.parse().map_err(|_| "must be a UUID in lower-case hyphenated form".to_owned())
}
