//! `countersign agents`.

use serde_json::{Value, json};

use crate::support::Issuer;
use crate::support::cli::Cli;

const CREATE: [&str; 12] = [
    "agents",
    "create",
    "--email",
    "one@example.com",
    "--agent-type",
    "screener",
    "--agent-version",
    "1.0.0",
    "--owner",
    "risk",
    "--deployment-env",
    "production",
];

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn the_life_of_an_agent() {
    let issuer = Issuer::start().await;
    let cli = Cli::new(&issuer.database.url).without("MASTER_KEY");
    let json = |arguments: &[&str]| parsed(&cli.run(&[arguments, &["--json"]].concat()).expect_success());
    let more =
        ["--scope", "orders:read", "--capability", "flag", "--metadata", "team=a", "--metadata", "note=x=y"];
    let made = json(&[&CREATE[..], &more].concat());
    let id = made["agent_id"].as_str().unwrap().to_owned();
    assert_eq!(made["scopes"], json!(["orders:read"]));
    assert_eq!(made["metadata"], json!({"team": "a", "note": "x=y"}));

    // As the API has it.
    let token = issuer.management_token(&issuer.administrator).await;
    let read = issuer.get(&format!("/api/v1/agents/{id}")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(read.json::<Value>().await.unwrap(), made);
    assert_eq!(json(&["agents", "show", &id]), made);
    let shown = cli.run(&["agents", "show", &id]).expect_success();
    assert!(
        shown.contains(&format!("agent_id        {id}\n"))
            && shown.contains("metadata        note=x=y team=a\n"),
        "{shown}"
    );

    let changed = json(&[
        "agents",
        "update",
        &id,
        "--agent-version",
        "2",
        "--no-scopes",
        "--remove-metadata",
        "team",
        "--metadata",
        "k=v",
    ]);
    assert_eq!(changed["version"], "2");
    assert_eq!(changed["scopes"], json!([]));
    assert_eq!(changed["capabilities"], json!(["flag"]));
    assert_eq!(changed["metadata"], json!({"note": "x=y", "k": "v"}));
    for (command, status) in
        [("suspend", "suspended"), ("reactivate", "active"), ("decommission", "decommissioned")]
    {
        assert_eq!(json(&["agents", command, &id])["status"], status);
    }
    assert_eq!(
        cli.run(&["agents", "reactivate", &id]).expect_failure(),
        "the agent is decommissioned, which is final"
    );
    let audit = issuer.database.audit("agent.decommissioned").await;
    assert_eq!((&audit[0]["actor"], &audit[0]["target"]), (&Value::Null, &json!(id)), "by the operator");
}

#[tokio::test]
async fn lists_for_people_and_for_programs() {
    let issuer = Issuer::start().await;
    let cli = Cli::new(&issuer.database.url).without("MASTER_KEY");
    cli.run(&CREATE).expect_success();
    let other = issuer.other_tenant().await;
    let table = cli.run(&["agents", "list"]).expect_success();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].starts_with("AGENT_ID ") && lines[0].ends_with("CREATED"), "{table}");
    assert!(lines[2].contains("one@example.com") && lines[2].contains("screener"), "{table}");

    let first = parsed(&cli.run(&["agents", "list", "--limit", "1", "--json"]).expect_success());
    assert_eq!(first["items"][0]["email"], "administrator@localhost");
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = parsed(&cli.run(&["agents", "list", "--cursor", cursor, "--json"]).expect_success());
    assert_eq!((&second["items"][0]["owner"], &second["next_cursor"]), (&json!("risk"), &Value::Null));
    let page = cli.run(&["agents", "list", "--limit", "1"]).expect_success();
    assert!(page.ends_with(&format!("There are more: --cursor {cursor}\n")), "{page}");

    let of = |arguments: &[&str]| {
        let list = parsed(&cli.run(&[&["agents", "list", "--json"], arguments].concat()).expect_success());
        list["items"].as_array().unwrap().len()
    };
    assert_eq!(
        of(&[
            "--agent-type",
            "screener",
            "--deployment-env",
            "production",
            "--status",
            "active",
            "--owner",
            "risk"
        ]),
        1
    );
    assert_eq!(of(&["--status", "suspended"]), 0);
    assert_eq!(of(&["--email", "ONE@example.com"]), 1);
    assert_eq!(of(&["--tenant", &other.tenant]), 1);
    // By its id alone it is clear whose an agent is; a tenant that is named must be its.
    let theirs = parsed(&cli.run(&["agents", "show", &other.id, "--json"]).expect_success());
    assert_eq!(theirs["tenant_id"], other.tenant.as_str());
    let said =
        cli.run(&["agents", "show", &other.id, "--tenant", &issuer.administrator.tenant]).expect_failure();
    assert_eq!(said, "no such agent");
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let issuer = Issuer::start().await;
    let cli = Cli::new(&issuer.database.url).without("MASTER_KEY");
    let nobody = "00000000-0000-4000-8000-000000000000";
    let mut wrong = CREATE;
    (wrong[3], wrong[5]) = ("nobody", "spy");
    let said = cli.run(&wrong).expect_failure();
    assert!(
        said.starts_with("email must be an email address")
            && said.contains("; agent_type must be one of screener"),
        "{said}"
    );
    assert_eq!(
        cli.run(&["agents", "show", nobody]).expect_failure(),
        format!("there is no {nobody} in any tenant")
    );
    assert_eq!(
        cli.run(&["agents", "list", "--tenant", nobody]).expect_failure(),
        format!("there is no tenant {nobody}")
    );
    assert_eq!(
        cli.run(&["agents", "list", "--cursor", "x"]).expect_failure(),
        "--cursor is not one of a list"
    );
    for usage in [
        &["agents", "show", "x"][..],
        &["agents", "list", "--status", "gone"],
        &["agents", "list", "--limit", "0"],
    ] {
        let ran = cli.run(usage);
        assert_eq!(ran.code(), Some(2), "{}", ran.stderr());
    }
    // The operator can hand out everything but what isn't the tenant's to have.
    let other = issuer.other_tenant().await;
    let said = cli
        .run(&[&CREATE[..], &["--tenant", &other.tenant, "--scope", "tenants:read"]].concat())
        .expect_failure();
    assert_eq!(said, "only agents of the platform's tenant may have tenants:read");
    let help = cli.run(&["agents", "--help"]).expect_success();
    assert!(help.contains("Examples:") && help.contains("countersign agents suspend"), "{help}");
}
